-- as amanat_app
update chain_cursors set final_number = 100, final_hash = decode(repeat('b0', 32), 'hex') where chain_id = 1;
