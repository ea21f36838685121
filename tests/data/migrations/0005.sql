-- as amanat_app
insert into trezor_accounts (id, user_id, label, account_index, path, xpub, fingerprint, device_id, device_model) values
    ('01900000-0000-7000-8000-000000000021', '01900000-0000-7000-8000-000000000001', 'main', 0, 'm/44''/60''/0''',
        'xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke',
        '\x01020304', '51D0000000000000AA000001', 'T1B1');
insert into trezor_derived_addresses (id, account_id, branch, address_index, address, purpose) values
    ('01900000-0000-7000-8000-000000000031', '01900000-0000-7000-8000-000000000021', 1, 0, decode(repeat('31', 20), 'hex'), 'gas'),
    ('01900000-0000-7000-8000-000000000032', '01900000-0000-7000-8000-000000000021', 1, 1, decode(repeat('32', 20), 'hex'), 'treasury'),
    ('01900000-0000-7000-8000-000000000033', '01900000-0000-7000-8000-000000000021', 0, 0, decode(repeat('33', 20), 'hex'), 'deposit'),
    ('01900000-0000-7000-8000-000000000034', '01900000-0000-7000-8000-000000000021', 0, 1000000, decode(repeat('34', 20), 'hex'), 'deposit');
update trezor_accounts set next_deposit_index = 1000001, updated_at = now();
