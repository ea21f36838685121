-- as amanat_app
insert into ledger_seals (number, previous_hash, entry_ids, last_entry_id, leaves, root, entries_total, derivation, sealed_at, hash) values
    (1, decode(repeat('00', 32), 'hex'), array[1, 2, 4], 4, decode(repeat('f1', 96), 'hex'), decode(repeat('f2', 32), 'hex'), 3,
        'm/44''/60''/0'' 01020304 1000001', now(), decode(repeat('f3', 32), 'hex')),
    (2, decode(repeat('f3', 32), 'hex'), array[3], 3, decode(repeat('f4', 32), 'hex'), decode(repeat('f4', 32), 'hex'), 4, '', now(),
        decode(repeat('f5', 32), 'hex'));
insert into ledger_seal_signatures (seal_number, account_id, address, signature) values
    (2, '01900000-0000-7000-8000-000000000021', decode(repeat('31', 20), 'hex'), decode(repeat('1b', 65), 'hex'));
