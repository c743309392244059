# Completion of iqdb for bash: source it, or put it where bash-completion finds it, under the name iqdb.
_iqdb() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} options=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "create import export query get put delete list stat verify repair backup compact reindex
            tune bench dump bake shell" -- "$word"))
        return
    fi
    case $before in
    --metric) COMPREPLY=($(compgen -W "l2 cosine dot l1 hamming" -- "$word")) && return ;;
    --element) COMPREPLY=($(compgen -W "f32 f16 bf16 i8 u8 bit" -- "$word")) && return ;;
    --format) COMPREPLY=($(compgen -W "fvecs ivecs bvecs fbin ibin u8bin i8bin npy jsonl csv" -- "$word")) && return ;;
    --index) COMPREPLY=($(compgen -W "auto flat hnsw ivf" -- "$word")) && return ;;
    --depth) COMPREPLY=($(compgen -W "frames blocks records" -- "$word")) && return ;;
    esac
    case ${COMP_WORDS[1]} in
    create) options="--dim --metric --element --model" ;;
    import) options="--dim --metric --element --model --format --first-id --id-field --vector-field --limit
        --replace --memory --quiet" ;;
    export) options="--format --filter --limit --quiet" ;;
    query) options="--id --vector --queries -k --metric --filter --max-distance --format --id-field --vector-field" ;;
    put) options="--vector --payload" ;;
    delete) options="--filter" ;;
    list) options="--filter --limit" ;;
    verify) options="--depth" ;;
    reindex) options="--index --nlist --nprobe -m --ef-construction --ef-search --seed --quiet" ;;
    tune) options="--recall --queries -k --format --id-field --vector-field --quiet" ;;
    bench) options="-k --seconds" ;;
    esac
    case $word in
    -*) COMPREPLY=($(compgen -W "$options --json --help" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}
complete -o filenames -F _iqdb iqdb
