-- as amanat_app
insert into derived_destinations (id, payment_ref_kind, payment_id, payment_external_ref, derived_address_id, address, chain_id, birth_block) values
    ('01900000-0000-7000-8000-000000000051', 'entity', '01900000-0000-7000-8000-000000000041', null,
        '01900000-0000-7000-8000-000000000033', decode(repeat('33', 20), 'hex'), 1, 0),
    ('01900000-0000-7000-8000-000000000052', 'template', null, 'template-9',
        '01900000-0000-7000-8000-000000000034', decode(repeat('34', 20), 'hex'), 1, 9223372036854775807);
update derived_destinations set status = 'sweeping', updated_at = now() where payment_ref_kind = 'entity';
