-- Verdicts of both gates, live and revoked, with what they were decided from; of one address or of all.
select
    v.id, v.gate as "gate!: Gate", v.transfer_id, v.observation_id, v.chain_id as "chain_id!: i64", v.block_number,
    v.block_hash as "block_hash!: Vec<u8>", v.head_number, v.head_hash as "head_hash!: Vec<u8>", v.depth, v.threshold,
    v.threshold_seen_history_id, v.threshold_now_history_id, v.final_number, v.final_hash as "final_hash?: Vec<u8>",
    v.judged_at, v.history_head_id, v.confirmed_at, v.revoked_at,
    o.asset as "asset!: Vec<u8>", o.amount::text as "amount!", b.first_seen_at, b.threshold_history_id
from transfer_verdicts v
join transfer_observations o on o.id = v.observation_id
join chain_blocks b on b.chain_id = v.chain_id and b.number = v.block_number and b.hash = v.block_hash
where v.id > $1 and ($2::uuid is null or o.derived_address_id = $2)
order by v.id
limit $3
