-- as amanat_app
update leases set number = number + 1, holder = 'sample', taken_at = now() where name = 'daemon';
select lease_check(number) from leases where name = 'daemon';
