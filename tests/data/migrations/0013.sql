-- as amanat_app
update chain_blocks set internal_read = true where chain_id = 1;
