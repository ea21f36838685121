-- Two gates, credit and release, each with its thresholds; and the final block that a chain's node names.

-- The highest block the node has called final, kept as a maximum: a node whose tag goes back is at fault,
-- not the chain.
alter table chain_cursors
    add column final_number bigint,
    add column final_hash hash32,
    add constraint chain_cursors_final_is_a_block check ((final_number is null) = (final_hash is null)),
    add constraint chain_cursors_final_positive check (final_number >= 0);
grant update (final_number, final_hash) on chain_cursors to amanat_app;
