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

# The command line in $1 is that of a server of this directory. Must say what nats.rs and postgres.rs say.
ours() {
    case $1 in *"--config $dir/nats/nats.conf"* | *"-D $dir/postgres -p"*) return 0 ;; esac
    return 1
}

# The command line of process $1 (a number may have gone to another process; a zombie has no command line).
command_line() {
    if [ -r /proc/self/stat ]; then
        tr '\0' ' ' <"/proc/$1/cmdline"
    else
        ps -o command= -p "$1"
    fi
}

# The servers' process ids: by their command lines, since one that has just been started has written no file.
servers() {
    if [ -r /proc/self/stat ]; then
        for pid in $(ls /proc); do
            case $pid in [1-9]*) echo "$pid $(command_line "$pid")" ;; esac
        done
    else
        ps -A -o pid= -o command=
    fi | while read -r pid line; do
        ours "$line" && echo "$pid"
    done
}

stop() {
    for pid in $1; do
        line=$(command_line "$pid")
        case $line in *"-D $dir/postgres -p"*) signal=INT ;; *) signal=TERM ;; esac
        ours "$line" && kill -$signal "$pid"
    done
    for pid in $1; do
        tries=100
        while ours "$(command_line "$pid")"; do
            tries=$((tries - 1))
            [ $tries -gt 0 ] || kill -KILL "$pid"
            sleep 0.1 || sleep 1
        done
    done
}

# Those of a directory that is kept are the ones that ran when the guard began: later it may be in use again.
[ "$then" = remove ] || kept=$(servers)
while [ "$(birth "$run")" = "$born" ]; do
    sleep 0.5 || sleep 1
done
if [ "$then" != remove ]; then
    stop "$kept"
    exit 0
fi
# A process of the run that was just starting servers may still write: until the directory stays away.
tries=60
while [ $tries -gt 0 ]; do
    tries=$((tries - 1))
    left=$(servers)
    [ -e "$dir" ] || [ -n "$left" ] || break
    stop "$left"
    rm -rf "$dir"
    sleep 1
done
