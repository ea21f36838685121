select
    o.id, o.transfer_id, o.chain_id as "chain_id!: i64", t.tx_hash as "tx_hash!: Vec<u8>", t.position,
    o.asset as "asset!: Vec<u8>", o.amount::text as "amount!", o.sender as "sender!: Vec<u8>",
    o.block_number, o.block_hash as "block_hash!: Vec<u8>", b.block_time, b.threshold_history_id, b.first_seen_at,
    o.internal, o.state = 'orphaned' as "orphaned!", o.orphaned_at,
    v.id as "verdict_id?", v.confirmed_at as "confirmed_at?",
    r.id as "release_id?"
from transfer_observations o
join transfers t on t.id = o.transfer_id
join chain_blocks b on b.chain_id = o.chain_id and b.number = o.block_number and b.hash = o.block_hash
-- The live verdict of each gate, if it rests on this very sighting.
left join transfer_verdicts v on v.observation_id = o.id and v.revoked_at is null and v.gate = 'credit'
left join transfer_verdicts r on r.observation_id = o.id and r.revoked_at is null and r.gate = 'release'
where o.derived_address_id = $1
order by o.id
limit 10000
