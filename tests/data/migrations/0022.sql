-- as amanat_app
insert into payment_quotes (
    payment_id, supersedes_id, kind, amount, currency, chain_id, token, token_decimals, fx_rate, token_price_usd, effective_price_usd,
    peg_usd, policy, band_bps, halt_bps, premium_bps, depeg_adjustment_bps, machine_state, peg_state, step, settle_amount, settle_units,
    required_units, quoted_at, expires_at, inclusion_grace_s, settings_head, evidence
)
select
    payment_id, id, 'priced', 100, 'USD', 1, 'USDC', 6, 1, 0.8774, 0.8774, 1, 'seller_whole', 25, 1500, 0, 1397, 'adjusted', 'below_peg', 6,
    113.973103, 113973103, 113973103, '2030-01-01T00:00:00Z', '2030-01-01T00:05:00Z', 120, 0, '{"version": 1}'
from payment_quotes where payment_id = '01900000-0000-7000-8000-000000000041';
-- The largest amount, at 18 decimals.
insert into payment_quotes (
    payment_id, kind, amount, currency, chain_id, token, token_decimals, fx_rate, token_price_usd, effective_price_usd, premium_bps,
    depeg_adjustment_bps, machine_state, peg_state, step, settle_amount, settle_units, required_units, quoted_at, expires_at,
    inclusion_grace_s
) values
    ('01900000-0000-7000-8000-000000000042', 'identity', 99999999999999999999.999999999999999999, 'USDT', 9223372036854775807, 'USDT', 18,
        1, 1, 1, 0, 0, 'par', 'n/a', 18, 99999999999999999999.999999999999999999, 99999999999999999999999999999999999999,
        99999999999999999999999999999999999999, '1999-12-31T23:59:59Z', '2000-01-01T00:00:00Z', 0);
insert into oracle_states (pair, depeg_state, calm_since, last_price_at, accepted_price, accepted_at, candidate_price, candidate_at) values
    ('USDC/USD', 'adjusted', '2023-03-11T08:00:00Z', '2023-03-11T08:10:00Z', 0.8774, '2023-03-11T08:10:00Z', null, null),
    ('IRR/USD', 'par', null, null, null, null, 0.000002280501710377, '2023-03-11T08:10:00Z');
update oracle_states set depeg_state = 'halted', calm_since = null, updated_at = now() where pair = 'USDC/USD';
insert into config_settings (key, value, description) values ('depeg_enter_bps:USDC', 25, 'a token further from its peg is taken at its price');
insert into config_setting_history (key, old_value, new_value, changed_by, reason) values
    ('depeg_enter_bps:USDC', null, 25, 'test', 'as it was');
