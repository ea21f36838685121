-- as amanat_app
insert into oracle_states (pair, last_price_at, accepted_price, accepted_at, heard_at, heard_prices) values
    ('USDT/USD', '2023-03-11T08:10:00Z', 1.0053, '2023-03-11T08:10:00Z', '2023-03-11T08:40:15Z', '{1.0049,1.0061}');
update oracle_states set heard_at = '2023-03-11T08:10:00Z', heard_prices = '{0.8774}', updated_at = now() where pair = 'USDC/USD';
