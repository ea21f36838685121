-- Verdicts of one gate and one round, as arrays of one length, all under the head ($2, $3).
with reached as (
    select * from unnest($4::bigint[], $5::bigint[], $6::integer[], $7::bigint[], $8::bigint[])
        as r (observation_id, depth, threshold, seen_history_id, now_history_id)
)
insert into transfer_verdicts (
    transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth, threshold,
    threshold_seen_history_id, threshold_now_history_id, gate, final_number, final_hash, judged_at, history_head_id
)
select
    o.transfer_id, o.id, o.chain_id, o.block_number, o.block_hash, head.number, head.hash, r.depth, r.threshold,
    r.seen_history_id, r.now_history_id, $9::verdict_gate, $10::bigint, $11::bytea, $12::timestamptz, $13::bigint
from reached r
-- A reorg may have been recorded since the round read these rows; then there is no verdict.
join transfer_observations o on o.id = r.observation_id and o.state = 'canonical' and not o.internal
join chain_blocks head
    on head.chain_id = o.chain_id and head.number = $2::bigint and head.hash = $3::bytea and head.state = 'canonical'
where o.chain_id = $1::bigint
-- The block that the node calls final is one of ours.
and ($10::bigint is null or exists (
    select from chain_blocks f where f.chain_id = $1::bigint and f.number = $10 and f.hash = $11::bytea and f.state = 'canonical'
))
-- Only what is credited is released; a credit may have been taken back since.
and ($9::verdict_gate = 'credit' or o.gate_passed = 'credit')
-- Exactly once per gate: another block of the same transfer may hold the live verdict until the ledger revokes it.
on conflict (transfer_id, gate) where revoked_at is null do nothing
