select
    v.id, v.block_number, v.block_hash as "block_hash!: Vec<u8>", b.block_time, t.tx_hash as "tx_hash!: Vec<u8>",
    o.asset as "asset!: Vec<u8>", o.amount::text as "amount!", o.recipient as "recipient!: Vec<u8>", o.derived_address_id
from transfer_verdicts v
join transfer_observations o on o.id = v.observation_id
join transfers t on t.id = v.transfer_id
join chain_blocks b on b.chain_id = v.chain_id and b.number = v.block_number and b.hash = v.block_hash
where v.chain_id = $1::bigint and v.id > $2 and v.revoked_at is null and v.gate = 'credit'
order by v.id
limit $3
