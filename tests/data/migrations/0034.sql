-- as amanat_app
insert into config_settings (key, value, description) values ('planning_note', 1, 'a key that only begins like the new ones');
