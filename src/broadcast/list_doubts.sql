-- Senders with signed bytes that no block holds, and the nonces of those.
with under_way as (
    select chain_id, from_address, min(nonce) as lowest, max(nonce) as highest, count(*) filter (where state = 'uncertain') as uncertain
    from intents
    where state not in ('settled', 'void', 'reverted', 'replaced') and state in ('signed', 'broadcast', 'uncertain')
    group by chain_id, from_address
),
-- From the nonce after the last one that is done: between it and the lowest under way there may be a gap too. Without
-- one the lowest under way is taken to be the first: what the key signed elsewhere is not known here.
spans as (
    select u.*, coalesce(
        (
            select i.nonce + 1 from intents i
            where i.chain_id = u.chain_id and i.from_address = u.from_address and i.nonce < u.lowest
              and i.state <> 'void' and i.state in ('settled', 'reverted')
            order by i.nonce desc limit 1
        ),
        u.lowest
    ) as first
    from under_way u
)
select s.chain_id as "chain_id!: i64", sum(s.uncertain)::bigint as "uncertain!",
       sum(s.highest - s.first + 1 - (
           select count(distinct i.nonce) from intents i
           where i.chain_id = s.chain_id and i.from_address = s.from_address and i.state <> 'void'
             and i.nonce between s.first and s.highest
       ))::bigint as "nonce_gaps!"
from spans s
group by s.chain_id
