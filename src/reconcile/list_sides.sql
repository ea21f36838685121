-- One statement, so that no entry is posted between its parts: what the books hold at these addresses, what
-- the chain held by the block that the books do not have yet, and what they have of later blocks.

-- the books
select a.address as "address!: Vec<u8>", a.asset as "asset!: Vec<u8>", b.balance::text as "units!", 'booked' as "part!"
from ledger_accounts a join ledger_balances b on b.account_id = a.id
where a.kind = 'custody' and a.chain_id = $1::bigint and a.holder = any ($3::bytea[])
union all
-- transfers from outside that wait for their gate
select o.recipient, o.asset, o.amount::text, 'incoming'
from transfer_observations o
where o.chain_id = $1::bigint and o.state = 'canonical' and not o.internal and o.gate_passed is null
  and o.block_number <= $2 and o.recipient = any ($3::bytea[])
union all
-- transfers that have passed it and wait to be posted: behind the ledger's cursor only what was set aside,
-- and what committed late
select o.recipient, o.asset, o.amount::text, 'incoming'
from transfer_verdicts v join transfer_observations o on o.id = v.observation_id
where v.id in (
        select t.id from transfer_verdicts t
        where t.chain_id = $1::bigint and t.gate = 'credit'
          and t.id > coalesce((select c.verdict_id from ledger_cursors c where c.chain_id = $1::bigint), 0) - 1000
        union
        select u.verdict_id from ledger_unposted u where u.chain_id = $1::bigint and u.posted_at is null
    )
  and v.gate = 'credit' and v.revoked_at is null
  and o.state = 'canonical' and not o.internal and o.block_number <= $2 and o.recipient = any ($3::bytea[])
  and not exists (select from funds_ledger_entries e where e.idempotency_key = 'verdict:' || v.id || ':credit')
union all
-- credits of later blocks: a tier or an earlier threshold may have asked for less depth
select o.recipient, o.asset, o.amount::text, 'outgoing'
from transfer_observations o
join transfer_verdicts v on v.observation_id = o.id and v.gate = 'credit' and v.revoked_at is null
where o.chain_id = $1::bigint and o.block_number > $2 and o.recipient = any ($3::bytea[])
  and exists (select from funds_ledger_entries e where e.idempotency_key = 'verdict:' || v.id || ':credit')
union all
-- our own transactions, mined by then and not settled: what leaves the sender
select t.from_address, i.asset, i.amount::text, 'outgoing'
from outbound_transactions t join intents i on i.id = t.intent_id
where t.chain_id = $1::bigint and t.settled_at is null and t.succeeded and t.block_number <= $2
  and t.from_address = any ($3::bytea[])
union all
-- what it cost
select t.from_address, $4::bytea, t.fee_paid::text, 'outgoing'
from outbound_transactions t
where t.chain_id = $1::bigint and t.settled_at is null and t.block_number <= $2 and t.from_address = any ($3::bytea[])
union all
-- what arrives at another address of ours
select i.to_address, i.asset, i.amount::text, 'incoming'
from outbound_transactions t join intents i on i.id = t.intent_id
where t.chain_id = $1::bigint and t.settled_at is null and t.succeeded and t.block_number <= $2
  and i.to_address = any ($3::bytea[])
union all
-- the same, settled in later blocks: it is in the books and was not in the chain by then
select t.from_address, i.asset, i.amount::text, 'incoming'
from outbound_transactions t join intents i on i.id = t.intent_id
where t.chain_id = $1::bigint and t.settled_at is not null and t.succeeded and t.block_number > $2
  and t.from_address = any ($3::bytea[])
union all
select t.from_address, $4::bytea, t.fee_paid::text, 'incoming'
from outbound_transactions t
where t.chain_id = $1::bigint and t.settled_at is not null and t.block_number > $2 and t.from_address = any ($3::bytea[])
union all
select i.to_address, i.asset, i.amount::text, 'outgoing'
from outbound_transactions t join intents i on i.id = t.intent_id
where t.chain_id = $1::bigint and t.settled_at is not null and t.succeeded and t.block_number > $2
  and i.kind in ('sweep', 'fuel') and i.to_address = any ($3::bytea[])
