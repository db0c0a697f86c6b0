# shellcheck shell=bash
# What the scripts that start training share: their own options, the attempts and what tells a finished run. Source it.
# A run is finished when it has written OUTPUT_DIR/finished.json, whatever its launcher's exit code says: the deepspeed
# launcher can end with 0 after a crash, and torchrun ends with 1 after a mistake of the user. A failure that a new start may
# mend ends with the launcher's exit code, or with $REFINER_DS_FAILURE_CODE for what starts it anew by that; a run that was asked
# to stop and has saved, with 75 or that code.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -n "${VIRTUAL_ENV:-}" ] || [ ! -x "$REPO/.venv/bin/python" ] || PATH=$REPO/.venv/bin:$PATH
PYTHON=${PYTHON:-python}
ARGUMENTS=()

# Says one sentence and ends with exit code 2: nothing was started, and the same again cannot help.
refuse() {
    echo "$*" >&2
    exit 2
}

# Prints the head of the script that was started: its help.
print_head() {
    sed -n '2,/^[^#]/{/^#\( \|$\)/s/^# \{0,1\}//p}' "$0"
}

# Keeps the arguments in ARGUMENTS, asks for help and finds the output folder, which stays among them.
read_arguments() {
    local argument
    ARGUMENTS=("$@")
    for argument in "$@"; do
        case $argument in -h | --help) print_head && exit 0 ;; esac
    done
    OUTPUT_DIR=$(option keep output_dir "")
    [ -n "$OUTPUT_DIR" ] || refuse "--output_dir is missing: it says where the run is kept, and finished.json there tells its end; add --output_dir runs/NAME"
    take_option max_restarts 0
    # shellcheck disable=SC2154 # take_option assigns it
    [[ $max_restarts =~ ^[0-9]+$ ]] || refuse "--max_restarts $max_restarts is not a count: give the number of restarts after a failure, such as 3"
}

# `take_option NAME DEFAULT` takes --NAME VALUE out of ARGUMENTS (also --NAME=VALUE and with - for _) into the variable NAME.
take_option() {
    local value
    value=$(option keep "$1" "$2") || exit
    printf -v "$1" '%s' "$value"
    option drop "$1" ""
}

# `option keep NAME DEFAULT` prints an option's last value; `option drop NAME ""` takes it out of ARGUMENTS.
option() {
    local do=$1 wanted=$2 found=$3 name rest=() i
    for ((i = 0; i < ${#ARGUMENTS[@]}; i++)); do
        name=${ARGUMENTS[i]%%=*}
        name=${name//-/_}
        if [[ ${ARGUMENTS[i]} != --* || $name != "__$wanted" ]]; then
            rest+=("${ARGUMENTS[i]}")
        elif [[ ${ARGUMENTS[i]} == *=* ]]; then
            found=${ARGUMENTS[i]#*=}
        else
            i=$((i + 1))
            [ "$i" -lt "${#ARGUMENTS[@]}" ] || refuse "--$wanted is the last argument and has no value: give it one"
            found=${ARGUMENTS[i]}
        fi
    done
    if [ "$do" = keep ]; then printf '%s\n' "$found"; else ARGUMENTS=("${rest[@]}"); fi
}

# `require_port HOST PORT [HOST_OPTION PORT_OPTION]` refuses a port that is taken, on the node that HOST ("" is this one) belongs to;
# elsewhere it cannot know. The options are the caller's for both, where they are not called master_addr and master_port.
require_port() {
    local said
    said=$(port_fault "$1" "$2" 2>&1) && return
    said=${said//--master_addr/--${3:-master_addr}}
    refuse "${said//--master_port/--${4:-master_port}}"
}

# Says why ranks cannot meet at a host and port of this node, and fails, if they cannot.
port_fault() {
    "$PYTHON" - "$1" "$2" <<'PROGRAM'
import errno, socket, sys
host, port = sys.argv[1], sys.argv[2]
if not port.isdecimal() or not 0 < int(port) < 65536:
    sys.exit(f"--master_port {port} is not a port: give a number from 1 to 65535 that is free on the first node")
try:
    family, kind, _, _, address = socket.getaddrinfo(host or "0.0.0.0", int(port), type=socket.SOCK_STREAM)[0]
except socket.gaierror as error:
    sys.exit(f"--master_addr {host} has no address here ({error.strerror}): give a name that every node resolves, or an IP address")
with socket.socket(family, kind) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit(f"--master_port {port} is taken on this node by another program, perhaps an earlier run: "
                     f"end that (`ss -ltnp 'sport = :{port}'` names it), or give another port on every node")
        if error.errno != errno.EADDRNOTAVAIL:  # not an address of this node: its own script looks there
            sys.exit(f"--master_port {port} cannot be used ({error.strerror}): give one from 1024 on")
PROGRAM
}

# `mark_of FILE` tells one FILE of the output folder from another, also where a second run writes the very same words; nothing
# where there is none.
mark_of() {
    stat -c '%i %y %s' "$OUTPUT_DIR/$1" 2>/dev/null || true
}

# Tells the newest complete checkpoint from one before; nothing where there is none.
checkpoint_mark() {
    find "$OUTPUT_DIR" -mindepth 2 -maxdepth 2 -path '*/checkpoint-*/commit.json' -printf '%T@ %i %p\n' 2>/dev/null | sort -n | tail -n 1 || true
}

# True once finished.json is another than before ($1); where the launcher claims success ($2 is 0), looks for $PATIENCE
# seconds, as a network folder may be late.
is_finished() {
    local mark waited
    for ((waited = 0; ; waited++)); do
        mark=$(mark_of finished.json)
        [ -n "$mark" ] && [ "$mark" != "$1" ] && return 0
        [ "$2" -eq 0 ] && [ "$waited" -lt "${PATIENCE:-0}" ] || return 1
        sleep 1
    done
}

# True while rank 0 has the output folder's lock.
is_held() {
    [ -e "$OUTPUT_DIR/.lock" ] && command -v flock >/dev/null && ! flock --nonblock --shared "$OUTPUT_DIR/.lock" true
}

# True where the run has left another preempted.json than before ($1) for this script's signal or the end of the queue's time;
# one that it left as its launcher was gone is a failure that a restart mends.
has_saved() {
    local mark waited
    for ((waited = 0; waited < 30; waited++)); do # ranks may outlive a launcher, to save
        mark=$(mark_of preempted.json)
        if [ -z "$STOPPED_BY" ] || [ "$mark" != "$1" ] || ! is_held; then break; fi
        sleep 1
    done
    [ -n "$mark" ] && [ "$mark" != "$1" ] || return 1
    [ -n "$STOPPED_BY" ] || grep -q save_before_end "$OUTPUT_DIR/preempted.json"
}

# Ends what runs, as this shell got a signal: by TERM, since background processes ignore INT, and launchers die of USR1.
forward() {
    STOPPED_BY=$1
    [ -z "$LAUNCHER_PID" ] || kill -TERM "$LAUNCHER_PID" 2>/dev/null || true
}

# Ends the pdsh and the ssh of a launcher that is gone ($1 is its process id): after a SIGKILL they would run on, and with them
# the ranks on other hosts.
end_connections() {
    local file
    for file in $(grep -lzxF "REFINER_DS_LAUNCHER=$(uname -n):$1" /proc/[0-9]*/environ 2>/dev/null || true); do
        case $(cat "${file%environ}comm" 2>/dev/null) in
        pdsh* | ssh) kill "$(basename "${file%/environ}")" 2>/dev/null || true ;;
        esac
    done
}

# Runs a launcher once and sets CODE to its exit code, or to 2 where torchrun tells that a rank ended with that. Before
# it, `prepare_attempt` may write down what the launcher's own process id ($REFINER_DS_LAUNCHER) is needed for.
run_attempt() {
    local errors=$SCRATCH/errors
    (
        trap - TERM USR1
        # the ranks end with this very process, also on other hosts, where it is nobody's parent
        REFINER_DS_LAUNCHER=$(uname -n):$BASHPID
        export REFINER_DS_LAUNCHER
        if declare -F prepare_attempt >/dev/null; then prepare_attempt; fi
        exec "$@" 2> >(exec tee "$errors" >&2)
    ) &
    LAUNCHER_PID=$!
    CODE=0
    wait "$LAUNCHER_PID" || CODE=$?
    while kill -0 "$LAUNCHER_PID" 2>/dev/null; do # a signal ends `wait`, and not what it waits for
        CODE=0
        wait "$LAUNCHER_PID" || CODE=$?
    done
    end_connections "$LAUNCHER_PID"
    LAUNCHER_PID=
    if [ "$CODE" -eq 1 ]; then
        sleep 0.3 # for tee
        if grep -qE 'exitcode *: 2( |\))' "$errors" 2>/dev/null; then CODE=2; fi
    fi
}

# `run_job LAUNCHER...` runs it until the run is finished, at most $max_restarts times more than once, and exits with the outcome.
run_job() {
    local before preempted restart=0
    SCRATCH=$(mktemp -d) STOPPED_BY='' LAUNCHER_PID=''
    trap 'rm -rf "$SCRATCH" ${AT_EXIT:+"$AT_EXIT"}' EXIT # a script may name a folder of its own in AT_EXIT
    trap 'forward TERM' TERM
    trap 'forward INT' INT
    trap 'forward USR1' USR1
    while :; do
        before=$(mark_of finished.json) preempted=$(mark_of preempted.json)
        [ -n "$STOPPED_BY" ] || run_attempt "$@"
        is_finished "$before" "${CODE:-1}" && exit 0
        if has_saved "$preempted"; then
            echo "the run was asked to stop and has saved; the same command continues" >&2
            exit "${REFINER_DS_FAILURE_CODE:-75}"
        fi
        if [ -n "$STOPPED_BY" ]; then
            echo "stopped by SIG$STOPPED_BY; the same command continues from the newest checkpoint of $OUTPUT_DIR" >&2
            exit $((128 + $(kill -l "$STOPPED_BY")))
        fi
        if [ "$CODE" -eq 2 ]; then
            exit 2 # its sentence has been said, and a restart cannot help
        fi
        echo "the launcher ended with exit code $CODE and the run has not finished: there is no new $OUTPUT_DIR/finished.json;" \
            "$OUTPUT_DIR/logs has the output of every rank" >&2
        [ "$restart" -lt "$max_restarts" ] || exit "${REFINER_DS_FAILURE_CODE:-$((CODE ? CODE : 1))}"
        restart=$((restart + 1))
        echo "restart $restart of $max_restarts: continues from the newest checkpoint" >&2
    done
}
