-- Whether the inside of a block's transactions was read, where the chain's own coin moves from contract to
-- contract. Blocks of which it was not are countable, and their addresses are checked by balance.

alter table chain_blocks add column internal_read boolean not null default false;
grant insert (internal_read), update (internal_read) on chain_blocks to amanat_app;
grant update (start_number) on chain_cursors to amanat_app;
create index chain_blocks_internal_unread_idx on chain_blocks (chain_id, number) where state = 'canonical' and not internal_read;
