-- What this round saw, as arrays of one length: transaction, position, block, and what moved.
with seen as (
    select *
    from unnest(
        $2::bytea[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[], $9::text[], $10::boolean[]
    ) as s (tx_hash, position, block_number, block_hash, asset, sender, recipient, amount, internal)
)
insert into transfer_observations (
    transfer_id, chain_id, block_number, block_hash, asset, sender, recipient, amount, derived_address_id, internal
)
select
    t.id, $1::bigint, s.block_number, s.block_hash, s.asset, s.sender, s.recipient, s.amount::numeric, d.id, s.internal
from seen s
join transfers t on t.chain_id = $1::bigint and t.tx_hash = s.tx_hash and t.position = s.position
-- Each recipient is an address of ours. One without a row drops out here, and the caller counts.
join trezor_derived_addresses d on d.address = s.recipient
-- The same sighting again: the block was orphaned and has come back. It must say the same as before; a
-- row that differs is left alone, and the caller, who counts, gives the round up.
on conflict on constraint transfer_observations_key do update set state = 'canonical', orphaned_at = null
where
    transfer_observations.asset = excluded.asset
    and transfer_observations.sender = excluded.sender
    and transfer_observations.recipient = excluded.recipient
    and transfer_observations.amount = excluded.amount
    and transfer_observations.derived_address_id = excluded.derived_address_id
