# Waits until process $2, born $3, has ended; then stops the servers whose data is below $1 and, with $4 = remove, removes $1.
# POSIX sh only. Must name a process's birth as process.rs does.
set -f
dir=$1 run=$2 born=$3 then=$4

birth() {
    if [ -r /proc/self/stat ]; then
        read -r stat <"/proc/$1/stat" || return 1
        set -- ${stat##*) }
        [ "$1" = Z ] || echo "${20}"
    else
        set -- $(LC_ALL=C ps -o lstart= -p "$1")
        echo "$*" | tr -c '[:alnum:]\n' _
    fi
}

# Whether process $1 is a server of this directory (a number may have gone to another process; a zombie has no command line).
ours() {
    if [ -r /proc/self/stat ]; then
        line=$(tr '\0' ' ' <"/proc/$1/cmdline")
    else
        line=$(ps -o command= -p "$1")
    fi
    case $line in *"$dir/"*) return 0 ;; esac
    return 1
}

# The servers' process ids. What was read once stays known when the file is gone.
pids() {
    [ -r "$dir/postgres/postmaster.pid" ] && read -r postgres <"$dir/postgres/postmaster.pid"
    [ -r "$dir/nats/nats.pid" ] && read -r nats <"$dir/nats/nats.pid"
}

stop() {
    [ -n "$postgres" ] && ours "$postgres" && kill -INT "$postgres"
    [ -n "$nats" ] && ours "$nats" && kill -TERM "$nats"
    for pid in $postgres $nats; do
        tries=100
        while ours "$pid"; do
            tries=$((tries - 1))
            [ $tries -gt 0 ] || kill -KILL "$pid"
            sleep 0.1 || sleep 1
        done
    done
}

postgres= nats=
pids
while [ "$(birth "$run")" = "$born" ]; do
    # Those of a directory that is kept are the ones that ran when the guard began: later it may be in use again.
    [ "$then" = remove ] && pids
    sleep 0.5 || sleep 1
done
stop
[ "$then" = remove ] || exit 0
# A process of the run that was just starting servers may still write: until the directory stays away.
tries=60
while [ -e "$dir" ] && [ $tries -gt 0 ]; do
    tries=$((tries - 1))
    pids
    stop
    rm -rf "$dir"
    sleep 1
done
