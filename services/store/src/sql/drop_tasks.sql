-- Gives every task of a host that stops to the others at once.
update tasks set held_until = '-infinity', holder = null where holder = $1
