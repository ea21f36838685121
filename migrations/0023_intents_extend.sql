-- An intent whose nonce another transaction of ours used: nothing of it happened. A migration of its own,
-- because a new value of an enum cannot be used in the transaction that adds it.
alter type intent_state add value 'replaced';
