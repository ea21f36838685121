-- Credited transfers by their sightings: where each stands, and what a screener is told of it.
select
    s.observation_id, s.chain_id as "chain_id!: i64", s.derived_address_id, s.policy_id, s.outcome as "outcome?: Outcome",
    s.origin as "origin?: Vec<u8>", s.hits, s.missing, s.waived, s.cleared, s.passes, s.attempts, s.quarantined,
    s.decision as "decision?: Decision", s.decided_by, s.decided_at, s.decision_reason, s.state_version,
    o.sender as "sender!: Vec<u8>", o.asset as "asset!: Vec<u8>", o.amount::text as "amount!", o.block_number,
    t.tx_hash as "tx_hash!: Vec<u8>", t.position, d.payment_id as "payment_id?"
from transfer_screenings s
join transfer_observations o on o.id = s.observation_id
join transfers t on t.id = o.transfer_id
left join derived_destinations d on d.derived_address_id = s.derived_address_id
where s.observation_id = any ($1::bigint[])
order by s.observation_id
