//! The environment of each launcher, as it really was (torchrun of PyTorch 2.15, Open MPI 4.1.4, MPICH 4.0.2, Slurm
//! 22.05; others from their documentation), the traps, and each refusal.

use super::*;
use std::collections::HashMap;

const TORCHRUN: &str = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 GROUP_RANK=1 GROUP_WORLD_SIZE=2 ROLE_NAME=default \
    ROLE_RANK=3 ROLE_WORLD_SIZE=4 MASTER_ADDR=node1 MASTER_PORT=29555 OMP_NUM_THREADS=1 TORCHELASTIC_MAX_RESTARTS=2 \
    TORCHELASTIC_RESTART_COUNT=0 TORCHELASTIC_RUN_ID=77 TORCHELASTIC_USE_AGENT_STORE=True";
const TORCHRUN_ALONE: &str = "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 GROUP_RANK=0 GROUP_WORLD_SIZE=1 MASTER_ADDR=localhost \
    MASTER_PORT=40197 OMP_NUM_THREADS=1 TORCHELASTIC_RESTART_COUNT=1 TORCHELASTIC_RUN_ID=3841eefc-0545-4e5b-bfda-14284377946f \
    TORCHELASTIC_USE_AGENT_STORE=True";
const OPEN_MPI: &str = "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_LOCAL_RANK=2 OMPI_COMM_WORLD_LOCAL_SIZE=3 \
    OMPI_COMM_WORLD_NODE_RANK=2 OMPI_MCA_ess_base_jobid=1085341697 OMPI_UNIVERSE_SIZE=2 PMIX_ID=1085341697.2 \
    PMIX_NAMESPACE=1085341697 PMIX_RANK=2";
const MPICH: &str =
    "HYDI_CONTROL_FD=7 MPIR_CVAR_CH3_INTERFACE_HOSTNAME=vm MPI_LOCALNRANKS=2 MPI_LOCALRANKID=1 PMI_FD=8 PMI_RANK=1 PMI_SIZE=2";
const SLURM: &str = "SLURMD_NODENAME=gnode10 SLURM_GTIDS=4,5 SLURM_JOB_ID=31234 SLURM_JOB_NODELIST=gnode[08-10,12] \
    SLURM_LAUNCH_NODE_IPADDR=192.0.2.77 SLURM_LOCALID=1 SLURM_NNODES=4 SLURM_NODEID=2 SLURM_NODELIST=gnode[08-10,12] \
    SLURM_NPROCS=7 SLURM_NTASKS=7 SLURM_PROCID=5 SLURM_STEP_ID=0 SLURM_STEP_NODELIST=gnode[08-10,12] SLURM_STEP_NUM_NODES=4 \
    SLURM_STEP_NUM_TASKS=7 SLURM_STEP_TASKS_PER_NODE=2(x3),1 SLURM_TASKS_PER_NODE=2(x3),1";
/// The script of `sbatch -n 2`: it is no task, but has a number like one.
const SLURM_BATCH: &str = "SLURM_GTIDS=0 SLURM_JOB_ID=3 SLURM_JOB_NODELIST=vm SLURM_LOCALID=0 SLURM_NNODES=1 SLURM_NODEID=0 \
    SLURM_NPROCS=2 SLURM_NTASKS=2 SLURM_PROCID=0 SLURM_TASKS_PER_NODE=2";
/// A shell of `salloc -n 2` on the host where it was typed, and one that is a step.
const SLURM_SHELL: &str = "SLURM_JOB_ID=2 SLURM_JOB_NODELIST=vm SLURM_NNODES=1 SLURM_NPROCS=2 SLURM_NTASKS=2 SLURM_TASKS_PER_NODE=2";
const SLURM_SHELL_STEP: &str = "SLURM_JOB_ID=3 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=2 SLURM_PROCID=0 SLURM_STEP_ID=4294967290 \
    SLURM_STEP_NODELIST=gnode08 SLURM_STEP_NUM_TASKS=1 SLURM_STEP_TASKS_PER_NODE=1 SLURM_TASKS_PER_NODE=2";
const KUBERNETES: &str = "JOB_COMPLETION_INDEX=2 DQRM_WORLD_SIZE=4 DQRM_RDZV=train-0.train:29500 DQRM_JOB=train";

/// Asks with the words of `first` and then `more`, which override them (`NAME=` unsets).
fn ask(flags: &Flags, first: &str, more: &str) -> Result<Option<Launch>> {
    let words = first.split_whitespace().chain(more.split_whitespace());
    let map: HashMap<&str, &str> = words.map(|word| word.split_once('=').unwrap()).collect();
    from(flags, &|name| map.get(name).map(|value| (*value).to_owned()))
}

fn launch(first: &str, more: &str) -> Launch {
    ask(&Flags::default(), first, more).unwrap().unwrap()
}

fn alone(first: &str, more: &str) -> bool {
    ask(&Flags::default(), first, more).unwrap().is_none()
}

fn flagged(flags: Flags, first: &str) -> Launch {
    ask(&flags, first, "").unwrap().unwrap()
}

#[track_caller]
fn refused(first: &str, more: &str, words: &[&str]) {
    refused_with(Flags::default(), first, more, words);
}

#[track_caller]
fn refused_with(flags: Flags, first: &str, more: &str, words: &[&str]) {
    let error = ask(&flags, first, more).unwrap_err().to_string();
    assert!(error.len() < 600 && error.lines().count() == 1, "{error}");
    words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
}

fn numbers_of(l: &Launch) -> (usize, usize, usize, usize) {
    (l.rank, l.world, l.local_rank, l.local_world)
}

fn place(l: &Launch) -> String {
    l.rendezvous.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn each_launcher_is_understood() {
    for (env, source, numbers, at, job, attempt) in [
        (TORCHRUN, "torchrun", (3, 4, 1, 2), "node1:29556|29557|29558|29559", "77", 0),
        (TORCHRUN_ALONE, "torchrun", (1, 2, 1, 2), "localhost:40198|40199|40200|40201", "3841eefc-0545-4e5b-bfda-14284377946f", 1),
        (OPEN_MPI, "Open MPI", (2, 3, 2, 3), "127.0.0.1:40415", "1085341697", 0),
        (SLURM, "Slurm", (5, 7, 1, 2), "gnode08:21234", "slurm-31234.0", 0),
        (KUBERNETES, "Kubernetes", (2, 4, 0, 1), "train-0.train:29500", "train", 0),
    ] {
        let l = launch(env, "");
        assert_eq!((l.source, numbers_of(&l), place(&l).as_str(), l.job.as_str(), l.attempt), (source, numbers, at, job, attempt));
        assert_eq!(l.notes, Vec::<String>::new());
    }
    let l = launch(MPICH, "DQRM_RDZV=127.0.0.1:29500");
    assert_eq!((l.source, numbers_of(&l), l.job.as_str()), ("PMI", (1, 2, 1, 2), "dqrm"));
    let cray = "PMI_RANK=5 PMI_SIZE=8 PMI_LOCAL_RANK=1 PMI_LOCAL_SIZE=4 PMI_JOBID=x.9 DQRM_RDZV=nid1:29500";
    assert_eq!((numbers_of(&launch(cray, "")), launch(cray, "").job), ((5, 8, 1, 4), "x.9".into()));
}

#[test]
fn a_lone_process_is_no_worker() {
    assert!(alone("", "") && alone("HOME=/root RANK=gold LOCAL_RANK=0 OMP_NUM_THREADS=1 DQRM_RDZV=a:1 DQRM_JOB=x", ""));
    assert!(alone(TORCHRUN, "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 GROUP_WORLD_SIZE=1"));
    assert!(alone("WORLD_SIZE=1 RANK=0", ""));
    assert!(alone(OPEN_MPI, "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=1"));
    assert!(alone(KUBERNETES, "DQRM_WORLD_SIZE=1"));
    assert!(alone(TORCHRUN, "RANK= WORLD_SIZE= LOCAL_RANK= LOCAL_WORLD_SIZE="));
    let l = flagged(Flags { world: Some(1), ..Flags::default() }, "");
    assert_eq!((numbers_of(&l), l.rendezvous, l.source), ((0, 1, 0, 1), None, "flags"));
}

#[test]
fn flags_alone_are_enough() {
    let rendezvous = Some("127.0.0.1:29500".parse().unwrap());
    let flags = Flags { rank: Some(1), world: Some(3), rendezvous, job: Some("mine".into()), attempt: Some(4) };
    let l = flagged(flags.clone(), "");
    assert_eq!((numbers_of(&l), place(&l), l.job.as_str(), l.attempt), ((1, 3, 1, 3), "127.0.0.1:29500".into(), "mine", 4));
    let far = Flags { rendezvous: Some("node1:29500".parse().unwrap()), ..flags };
    assert_eq!(numbers_of(&flagged(far, "")), (1, 3, 0, 1), "nothing says how many are on this host");
}

#[test]
fn flags_win_over_variables_of_dqrm_and_those_over_launchers() {
    let l = launch(SLURM, "DQRM_RDZV=[fd00::2]:1234 DQRM_JOB=mine DQRM_ATTEMPT=7");
    assert_eq!((place(&l).as_str(), l.job.as_str(), l.attempt, l.source), ("[fd00::2]:1234", "mine", 7, "Slurm"));
    let flags = Flags { rendezvous: Some("a:1".parse().unwrap()), job: Some("other".into()), attempt: Some(8), ..Flags::default() };
    let l = ask(&flags, SLURM, "DQRM_RDZV=b:2 DQRM_JOB=mine DQRM_ATTEMPT=7").unwrap().unwrap();
    assert_eq!((place(&l).as_str(), l.job.as_str(), l.attempt, l.rank), ("a:1", "other", 8, 5));
    let l = flagged(Flags { rank: Some(6), ..Flags::default() }, SLURM);
    assert_eq!((numbers_of(&l), l.source), ((6, 7, 1, 2), "Slurm"));
    assert_eq!(l.notes, ["flags say rank 6 of 7, Slurm says rank 5 of 7"]);
    // Both by flag: what the launcher says wrongly does not matter any more.
    let both = Flags { rank: Some(0), world: Some(2), rendezvous: Some("a:1".parse().unwrap()), ..Flags::default() };
    let l = flagged(both.clone(), "WORLD_SIZE=2 RANK=x");
    assert_eq!((numbers_of(&l), l.source, l.notes.len()), ((0, 2, 0, 1), "flags", 1));
    let l = flagged(both, TORCHRUN);
    assert_eq!((numbers_of(&l), l.source), ((0, 2, 1, 2), "flags"));
    assert!(l.notes[0].contains("flags say rank 0 of 2, torchrun says rank 3 of 4"));
}

#[test]
fn trap_port_the_agent_listens_at_master_port() {
    assert!(!launch(TORCHRUN, "").rendezvous.unwrap().ports.contains(&29555));
    assert_eq!(place(&launch(TORCHRUN, "DQRM_RDZV_PORT=31000")), "node1:31000");
    for not in ["False", "", "0"] {
        assert_eq!(place(&launch(TORCHRUN, &format!("TORCHELASTIC_USE_AGENT_STORE={not}"))), "node1:29555");
    }
    assert_eq!(place(&launch(TORCHRUN, "MASTER_PORT=65533")), "node1:65534|65535");
    refused(TORCHRUN, "MASTER_PORT=65535", &["`MASTER_PORT`, which is `65535`", "--rdzv"]);
    assert_eq!(place(&launch(TORCHRUN, "MASTER_PORT=65535 DQRM_RDZV=node1:5")), "node1:5");
    assert_eq!(place(&launch(TORCHRUN, "MASTER_ADDR=fd00::2 TORCHELASTIC_USE_AGENT_STORE=False")), "[fd00::2]:29555");
    refused(TORCHRUN, "MASTER_ADDR=", &["`MASTER_ADDR` or `MASTER_PORT` is not set; give --rdzv"]);
    refused(TORCHRUN, "MASTER_PORT=0", &["`MASTER_ADDR` or `MASTER_PORT`"]);
    refused(TORCHRUN, "MASTER_PORT=65536", &["`MASTER_PORT` is `65536`; at most 65535"]);
    refused(TORCHRUN, "MASTER_ADDR=a/b", &["`MASTER_ADDR` is `a/b`"]);
    refused(TORCHRUN, "DQRM_RDZV_PORT=0", &["`DQRM_RDZV_PORT` is `0`"]);
}

#[test]
fn trap_world_size_may_count_hosts() {
    refused("RANK=0 WORLD_SIZE=2", "", &["`WORLD_SIZE` is `2`, which may count hosts, for `LOCAL_RANK`, `LOCAL_WORLD_SIZE` are not set"]);
    refused(TORCHRUN, "LOCAL_WORLD_SIZE=", &["for `LOCAL_WORLD_SIZE` is not set; give --rank and --world"]);
    refused("WORLD_SIZE=2", "", &["for `RANK`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE` are not set"]);
    // Two hosts of eight, counted as two.
    refused(TORCHRUN, "RANK=1 WORLD_SIZE=2 LOCAL_WORLD_SIZE=8", &["`LOCAL_WORLD_SIZE` is `8`, but torchrun counts 2 workers", "hosts?"]);
    // Another launcher inside such a pod.
    let l = launch(OPEN_MPI, "RANK=0 WORLD_SIZE=2");
    assert_eq!((l.source, l.rank, l.world), ("Open MPI", 2, 3));
    assert!(l.notes[0].contains("`WORLD_SIZE` is `2`, which may count hosts") && l.notes[0].contains("Open MPI is believed"));
}

#[test]
fn trap_two_sources_the_higher_wins_and_both_are_named() {
    let l = launch(TORCHRUN, SLURM);
    assert_eq!((l.source, l.rank, l.world), ("torchrun", 3, 4));
    assert_eq!(l.notes, ["torchrun says rank 3 of 4, Slurm says rank 5 of 7: torchrun is believed"]);
    let l = launch(OPEN_MPI, KUBERNETES);
    assert_eq!((l.source, place(&l).as_str()), ("Open MPI", "train-0.train:29500"));
    assert_eq!(l.notes, ["Open MPI says rank 2 of 3, Kubernetes says rank 2 of 4: Open MPI is believed"]);
    // `mpirun` in a batch script: every rank has the script's `SLURM_PROCID`.
    assert_eq!(launch(OPEN_MPI, SLURM_BATCH), launch(OPEN_MPI, ""));
    // One torchrun by accident in each task: each would train alone.
    let one = "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1";
    let l = ask(&Flags::default(), SLURM, one).unwrap().unwrap();
    assert_eq!((l.world, l.notes.len()), (1, 1));
    // Two that agree have nothing to note.
    assert!(launch(SLURM, "OMPI_COMM_WORLD_RANK=5 OMPI_COMM_WORLD_SIZE=7 DQRM_RDZV=a:1").notes.is_empty());
}

#[test]
fn trap_attempt_several_agents_count_differently() {
    assert_eq!(launch(TORCHRUN_ALONE, "").attempt, 1);
    // With two agents and a rank that failed once, ranks 0 and 1 had 1 and ranks 2 and 3 had 0.
    assert_eq!(launch(TORCHRUN, "TORCHELASTIC_RESTART_COUNT=1").attempt, 0);
    assert_eq!(launch(TORCHRUN, "TORCHELASTIC_RESTART_COUNT=1 DQRM_ATTEMPT=3").attempt, 3);
    assert_eq!(launch(TORCHRUN_ALONE, "GROUP_WORLD_SIZE=").attempt, 1);
    assert_eq!(launch(SLURM, "SLURM_RESTART_COUNT=2").attempt, 2);
    refused(SLURM, "SLURM_RESTART_COUNT=4294967296", &["`SLURM_RESTART_COUNT` is `4294967296`"]);
    refused(SLURM, "DQRM_ATTEMPT=one", &["`DQRM_ATTEMPT` is `one`; a whole number from 0 to 4294967295"]);
}

#[test]
fn trap_threads_are_shared_by_the_workers_of_a_host() {
    for (cores, workers, expected) in [(16, 4, 4), (16, 1, 16), (2, 4, 1), (0, 0, 1), (7, 2, 3), (8, usize::MAX, 1)] {
        assert_eq!(threads(cores, workers), expected);
    }
}

#[test]
fn trap_slurm_only_a_step_of_several_tasks_counts() {
    for env in [SLURM_BATCH, SLURM_SHELL, SLURM_SHELL_STEP] {
        assert!(alone(env, ""), "{env}");
    }
    assert!(alone(SLURM, "SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0"), "srun -n 1 in an allocation for more");
    assert_eq!(launch(SLURM, "SLURM_STEP_NUM_TASKS=").world, 7);
}

#[test]
fn trap_slurm_rank_0_is_on_the_first_host() {
    for (list, host) in [("gnode[10,20,25,37]", "gnode10"), ("a[001-004,7]-x,b3", "a001-x"), ("vm", "vm")] {
        assert_eq!(place(&launch(SLURM, &format!("SLURM_STEP_NODELIST={list}"))), format!("{host}:21234"));
    }
    assert_eq!(place(&launch(SLURM, "SLURM_STEP_NODELIST=")), "gnode08:21234");
    // A second step that runs at the same time.
    let second = launch(SLURM, "SLURM_STEP_ID=1");
    assert_eq!((place(&second).as_str(), second.job.as_str()), ("gnode08:22243", "slurm-31234.1"));
    refused(SLURM, "SLURM_STEP_NODELIST=a[1", &["`SLURM_STEP_NODELIST`", "not closed", "--rdzv"]);
    refused(SLURM, "SLURM_STEP_NODELIST= SLURM_JOB_NODELIST=", &["`SLURM_STEP_NODELIST` is not set", "--rdzv"]);
    refused(SLURM, "SLURM_JOB_ID=", &["`SLURM_JOB_ID` is not set", "--rdzv"]);
    refused(SLURM, "SLURM_DISTRIBUTION=arbitrary", &["rank 0 may be on any host", "--rdzv"]);
    assert_eq!(place(&launch(SLURM, "SLURM_DISTRIBUTION=arbitrary DQRM_RDZV=a:1")), "a:1");
    assert_eq!(place(&launch(SLURM, "SLURM_DISTRIBUTION=block")), "gnode08:21234");
    refused(SLURM, "SLURM_STEP_TASKS_PER_NODE=2(x", &["tasks of each node are `2(x`"]);
    assert_eq!(numbers_of(&launch(SLURM, "SLURM_STEP_TASKS_PER_NODE= SLURM_TASKS_PER_NODE=")), (5, 7, 0, 1));
}

#[test]
fn trap_slurm_sets_pmi_too_and_says_more() {
    let pmi2 = launch(SLURM, "PMI_FD=13 PMI_JOBID=31234.0 PMI_RANK=5 PMI_SIZE=7");
    assert_eq!(pmi2, launch(SLURM, ""));
    assert_eq!(launch(SLURM, "PMIX_RANK=5 PMIX_NAMESPACE=slurm.pmix.5.0"), launch(SLURM, ""));
    // `mpiexec` of MPICH that has Slurm start its proxies, one on each of four hosts.
    let l = launch(
        SLURM,
        "SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=4 SLURM_STEP_TASKS_PER_NODE=1(x4) SLURM_LOCALID=0 PMI_RANK=1 PMI_SIZE=8 DQRM_RDZV=a:1",
    );
    assert_eq!((l.source, l.world, l.notes.len()), ("PMI", 8, 1));
}

#[test]
fn mpi_gives_a_place_only_on_one_host() {
    let two_hosts = "OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=1";
    refused(OPEN_MPI, two_hosts, &["Open MPI does not say where rank 0 is; give --rdzv HOST:PORT"]);
    assert_eq!(numbers_of(&launch(OPEN_MPI, &format!("{two_hosts} DQRM_RDZV=node1:29500"))), (2, 3, 0, 1));
    // The port follows from the job and is the same wherever it is computed.
    let port = |more: &str| launch(OPEN_MPI, more).rendezvous.unwrap().ports[0];
    assert_eq!(port(""), port("PMIX_NAMESPACE= OMPI_COMM_WORLD_RANK=0"));
    assert_ne!(port(""), port("PMIX_NAMESPACE=1085341698"));
    assert_eq!(port("DQRM_JOB=mine"), launch(MPICH, "DQRM_JOB=mine").rendezvous.unwrap().ports[0]);
    assert_eq!(port("DQRM_RDZV_PORT=5"), 5);
    for job in 0..1000 {
        assert!((20_000..50_000).contains(&port(&format!("DQRM_JOB=job{job}"))));
    }
    refused(MPICH, "", &["nothing names the job", "--job", "--rdzv"]);
    refused("PMIX_RANK=3 PMIX_NAMESPACE=x", "", &["`PMIX_RANK` is `3`, but PMIx puts no world size", "--world"]);
    refused(OPEN_MPI, "OMPI_COMM_WORLD_SIZE=", &["Open MPI started this process, but `OMPI_COMM_WORLD_SIZE` is not set"]);
    refused(MPICH, "PMI_SIZE=", &["`PMI_SIZE` is not set"]);
}

#[test]
fn kubernetes_does_not_say_how_many_or_where() {
    refused(KUBERNETES, "DQRM_WORLD_SIZE=", &["`JOB_COMPLETION_INDEX` is `2`", "--world", "`DQRM_WORLD_SIZE`"]);
    refused(KUBERNETES, "DQRM_RDZV=", &["Kubernetes does not say where rank 0 is", "--rdzv", "`DQRM_RDZV`"]);
    let l = ask(&Flags { world: Some(8), ..Flags::default() }, KUBERNETES, "DQRM_WORLD_SIZE=").unwrap().unwrap();
    assert_eq!((l.rank, l.world, l.source), (2, 8, "Kubernetes"));
    refused_with(Flags { world: Some(2), ..Flags::default() }, KUBERNETES, "", &["`JOB_COMPLETION_INDEX` is `2`, but `--world` is `2`"]);
}

#[test]
fn half_of_the_flags_is_not_enough() {
    let flags = |rank, world| Flags { rank, world, ..Flags::default() };
    refused_with(flags(Some(1), None), "", "", &["`--rank` is `1`", "give --world"]);
    refused_with(flags(None, Some(4)), "", "", &["`--world` is `4`", "give --rank"]);
    refused_with(flags(Some(4), Some(4)), "", "", &["rank `4` of `4` workers"]);
    refused_with(flags(Some(0), Some(0)), "", "", &["`--world` is `0`; 1 to 4096"]);
    refused_with(flags(Some(0), Some(4097)), "", "", &["`--world` is `4097`"]);
    refused_with(flags(Some(0), Some(2)), "", "", &["nothing says where rank 0 is; give --rdzv"]);
    refused_with(flags(Some(4), None), TORCHRUN, "", &["rank `4` of `4` workers"]);
    let place = Flags { rendezvous: Some("a:1".parse().unwrap()), ..Flags::default() };
    refused_with(place, "", "", &["`--rdzv` is given", "--rank and --world"]);
    refused_with(Flags { job: Some("a\nb".into()), ..flags(Some(0), Some(1)) }, "", "", &["`--job` is `a\\nb`"]);
}

#[test]
fn wrong_numbers_are_named_with_their_variable() {
    let variables = [
        (TORCHRUN, "RANK", "WORLD_SIZE", "LOCAL_RANK"),
        (OPEN_MPI, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        (MPICH, "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
        (SLURM, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
        (KUBERNETES, "JOB_COMPLETION_INDEX", "DQRM_WORLD_SIZE", ""),
    ];
    for (env, rank, world, local) in variables {
        for name in [rank, world, local].into_iter().filter(|name| !name.is_empty()) {
            for value in ["-1", "x", "1.0", "+1", "0x1", "1e3", "٣", "1_0", "NaN"] {
                refused(env, &format!("{name}={value}"), &[&format!("`{name}` is `{value}`; a whole number from 0 to")]);
            }
        }
        refused(env, &format!("{rank}=7"), &[&format!("`{rank}` is `7`, but `{world}` is `")]);
        refused(env, &format!("{rank}=99999999999999999999999"), &[&format!("`{rank}` is `18446744073709551615`")]);
        refused(env, &format!("{rank}=0 {world}=0"), &[&format!("`{world}` is `0`; 1 to 4096 workers")]);
        refused(env, &format!("{world}=4097"), &[&format!("`{world}` is `4097`; 1 to 4096 workers")]);
        if !local.is_empty() {
            refused(env, &format!("{local}=4000"), &[&format!("`{local}` is `4000`, but `")]);
        }
    }
    let long = "9".repeat(1 << 20);
    refused(TORCHRUN, &format!("LOCAL_RANK={long}"), &["`LOCAL_RANK` is `999", "…`; at most 4096"]);
    refused(TORCHRUN, &format!("TORCHELASTIC_RUN_ID={long}"), &["`TORCHELASTIC_RUN_ID` is `999", "up to 256 bytes"]);
}

#[test]
fn places_are_read_and_written_alike() {
    for text in ["node1:29500", "127.0.0.1:1", "[fd00::2]:65535", "[fe80::1%eth0]:80", "a-b_c.d:9"] {
        assert_eq!(text.parse::<Rendezvous>().unwrap().to_string(), text);
    }
    for text in
        ["", "node1", ":1", "node1:", "node1:0", "node1:65536", "node1:-1", "fd00::2:29500", "a b:1", "[]:1", "[a:1", "a@b:1", "http://a:1"]
    {
        let error = text.parse::<Rendezvous>().unwrap_err().to_string();
        assert!(error.contains(&format!("`--rdzv` is `{text}`; host:port was expected")), "{error}");
    }
    refused(KUBERNETES, "DQRM_RDZV=train", &["`DQRM_RDZV` is `train`; host:port was expected"]);
    let place = |host: &str| Rendezvous { host: host.into(), ports: vec![1] };
    assert!(["localhost", "127.9.9.9", "::1"].iter().all(|host| place(host).is_loopback()));
    assert!(["10.0.0.1", "localhost.example.org", "fd00::1"].iter().all(|host| !place(host).is_loopback()));
}
