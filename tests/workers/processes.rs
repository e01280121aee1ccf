//! Jobs of several processes over TCP: launched by flags and by the environment of launchers, and what becomes of the
//! others when one is killed, stopped, or does not belong.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SECRET: &str = "a secret of this test's jobs";

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dqrm"));
    for (name, _) in std::env::vars_os().filter(|(n, _)| {
        let name = n.to_string_lossy();
        ["RANK", "WORLD", "LOCAL_", "MASTER_", "TORCHELASTIC", "OMPI_", "PMI", "SLURM_", "JOB_COMPLETION", "DQRM_"]
            .iter()
            .any(|p| name.starts_with(p))
    }) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A job on this computer.
struct Job {
    folder: tempfile::TempDir,
    port: u16,
}

impl Job {
    fn new() -> Job {
        let folder = tempfile::tempdir().unwrap();
        let settings = "device = \"cpu\"\n[model]\nrows = [40, 3, 700]\ndim = 4\nbottom = [9, 4]\ntop = [11, 1]\n[train]\ncheckpoint_every = 20\n[data.synthetic]\nsamples = 1000000\n";
        std::fs::write(folder.path().join("job.toml"), settings).unwrap();
        Job { folder, port: free_port() }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Rank `rank` of three, with more flags.
    fn rank(&self, rank: usize, flags: &[&str]) -> Child {
        self.rank_within("20", rank, flags)
    }

    /// The same, with seconds to wait for the others.
    fn rank_within(&self, seconds: &str, rank: usize, flags: &[&str]) -> Child {
        let rdzv = format!("127.0.0.1:{}", self.port);
        let mut command = program();
        command.arg("train").args(["--rank", &rank.to_string(), "--world", "3", "--rdzv", &rdzv, "--job", "test"]);
        command.args(["--silence-timeout", "3", "--step-timeout", "8", "--connect-timeout", seconds]);
        if !flags.contains(&"--resume") {
            command.arg(self.folder.path().join("job.toml")).arg("--out").arg(self.dir());
        }
        command.args(flags).env("DQRM_SECRET", SECRET).spawn().unwrap()
    }

    fn ranks(&self, flags: &[&str]) -> Vec<Child> {
        (0..3).map(|r| self.rank(r, flags)).collect()
    }

    /// Waits until the run has a checkpoint.
    fn wait_for_checkpoint(&self) {
        let began = Instant::now();
        while !self.dir().join("last.safetensors").exists() {
            assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint came");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Checks that the last checkpoint is whole; its step.
    fn checkpoint(&self) -> u64 {
        let mut file = dqrm::checkpoint::Checkpoint::open(&self.dir().join("last.safetensors")).unwrap();
        file.verify().unwrap();
        file.header.step
    }
}

/// Exit code and standard error of a process that ends soon.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("a process did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status.code(), text)
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn json(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn processes_over_tcp_train_the_model_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, flags: &[&str]| {
        let dir = folder.path().join(name).join("run");
        let settings = ["--samples", "20000", "--max-steps", "60", "--device", "cpu", "--json"];
        let output = program().arg("train").args(settings).args(flags).arg("--out").arg(&dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        json(&output.stdout)
    };
    for flags in [
        &["--gradients", "8"][..],
        &["--gradients", "none"],
        &["--gradients", "4", "--row-sums", "owner"],
        &["--gradient-scale", "average"],
    ] {
        let with = |more: &[&'static str]| [flags, more].concat();
        let names: Vec<String> = ["tcp", "threads", "logical"].iter().map(|n| format!("{n}{}", flags.join(""))).collect();
        let tcp = run(&names[0], &with(&["--workers", "3", "--transport", "tcp"]));
        let threads = run(&names[1], &with(&["--workers", "3"]));
        let logical = run(&names[2], &with(&["--simulate-workers", "3"]));
        for (other, name) in [(&threads, &names[1]), (&logical, &names[2])] {
            assert_eq!(tcp["end"]["auc"], other["end"]["auc"]);
            let differing = crate::job::differing(&folder.path().join(&names[0]), &folder.path().join(name));
            assert!(differing.is_empty(), "{flags:?} {name}: {differing:?}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_rank_that_is_killed_ends_the_job_and_its_checkpoint_goes_on() {
    for killed in 0..3 {
        let job = Job::new();
        let mut ranks = job.ranks(&[]);
        job.wait_for_checkpoint();
        let victim = ranks.remove(killed);
        signal(&victim, "-KILL");
        let killed_at = Instant::now();
        ended(victim);
        for rank in ranks {
            let (code, text) = ended(rank);
            assert_eq!(code, Some(4), "{text}");
            assert!(text.contains(&format!("rank {killed}")) && text.contains("(step "), "{text}");
        }
        assert!(killed_at.elapsed() < Duration::from_secs(15));
        let step = job.checkpoint();
        assert_eq!(step % 20, 0);
        if killed == 1 {
            // the same job goes on
            let until = (step + 20).to_string();
            let dir = job.dir();
            for child in job.ranks(&["--resume", dir.to_str().unwrap(), "--max-steps", &until]) {
                let (code, text) = ended(child);
                assert_eq!(code, Some(0), "{text}");
            }
            assert_eq!(job.checkpoint(), step + 20);
        }
    }
}

#[cfg(unix)]
#[test]
fn a_rank_that_is_stopped_is_given_up() {
    let job = Job::new();
    let mut ranks = job.ranks(&[]);
    job.wait_for_checkpoint();
    let victim = ranks.remove(2);
    signal(&victim, "-STOP");
    for rank in ranks {
        let (code, text) = ended(rank);
        assert_eq!(code, Some(4), "{text}");
        assert!(text.contains("rank 2"), "{text}");
    }
    signal(&victim, "-KILL");
    ended(victim);
    job.checkpoint();
}

#[cfg(unix)]
#[test]
fn an_interrupted_rank_stops_all_of_them_after_a_step_that_is_saved() {
    let job = Job::new();
    let ranks = job.ranks(&[]);
    job.wait_for_checkpoint();
    signal(&ranks[1], "-INT");
    let texts: Vec<(Option<i32>, String)> = ranks.into_iter().map(ended).collect();
    assert!(texts.iter().all(|(code, _)| *code == Some(130)), "{texts:?}");
    let step = job.checkpoint();
    assert!(texts[0].1.contains(&format!("interrupted after step {step}")), "{texts:?}");
}

#[test]
fn ranks_that_do_not_belong_are_refused() {
    // (rank, flags, secret, what rank 0 and the stranger say)
    let cases: [(&[&str], &str, &str); 4] = [
        (&["--seed", "7"], SECRET, "seed"),
        (&["--batch", "64"], SECRET, "batch"),
        (&["--attempt", "3"], SECRET, "attempt"),
        (&[], "another secret, as long as this", ""),
    ];
    for (flags, secret, says) in cases {
        let job = Job::new();
        let first = job.rank_within("3", 0, &[]);
        let second = job.rank_within("3", 1, &[]);
        let rdzv = format!("127.0.0.1:{}", job.port);
        let mut command = program();
        command
            .arg("train")
            .arg(job.folder.path().join("job.toml"))
            .args(["--rank", "2", "--world", "3", "--rdzv", &rdzv, "--job", "test"]);
        let third = command.args(["--connect-timeout", "3"]).args(flags).env("DQRM_SECRET", secret).spawn().unwrap();
        let ended = [first, second, third].map(ended);
        assert!(ended.iter().all(|(code, _)| *code == Some(4)), "{flags:?}: {ended:?}");
        assert!(ended[0].1.contains(says) || ended[2].1.contains(says), "{flags:?}: {ended:?}");
        assert!(!job.dir().exists(), "nothing was begun");
    }
}

#[test]
fn missing_ranks_are_named() {
    let job = Job::new();
    let (code, text) = ended(job.rank_within("0.5", 0, &[]));
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("ranks 1 and 2 of 3 did not come"), "{text}");
}

#[test]
fn launchers_environments_make_a_job() {
    let torchrun = |rank: usize, port: u16| -> Vec<(&str, String)> {
        vec![
            ("RANK", rank.to_string()),
            ("WORLD_SIZE", "2".into()),
            ("LOCAL_RANK", rank.to_string()),
            ("LOCAL_WORLD_SIZE", "2".into()),
            ("MASTER_ADDR", "127.0.0.1".into()),
            ("MASTER_PORT", port.to_string()),
            ("TORCHELASTIC_RUN_ID", "test".into()),
        ]
    };
    let open_mpi = |rank: usize, port: u16| -> Vec<(&str, String)> {
        vec![
            ("OMPI_COMM_WORLD_RANK", rank.to_string()),
            ("OMPI_COMM_WORLD_SIZE", "2".into()),
            ("OMPI_COMM_WORLD_LOCAL_RANK", rank.to_string()),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2".into()),
            ("DQRM_RDZV", format!("127.0.0.1:{port}")),
        ]
    };
    let kubernetes = |rank: usize, port: u16| -> Vec<(&str, String)> {
        vec![("JOB_COMPLETION_INDEX", rank.to_string()), ("DQRM_WORLD_SIZE", "2".into()), ("DQRM_RDZV", format!("127.0.0.1:{port}"))]
    };
    type Environment<'a> = &'a dyn Fn(usize, u16) -> Vec<(&'static str, String)>;
    let launchers: [Environment<'_>; 3] = [&torchrun, &open_mpi, &kubernetes];
    for launcher in launchers {
        let job = Job::new();
        let start = |rank: usize| {
            let mut command = program();
            command.arg("train").arg(job.folder.path().join("job.toml")).args(["--max-steps", "5", "--out"]).arg(job.dir());
            command.envs(launcher(rank, job.port)).spawn().unwrap()
        };
        let ended = [start(0), start(1)].map(ended);
        assert!(ended.iter().all(|(code, _)| *code == Some(0)), "{ended:?}");
        assert_eq!(job.checkpoint(), 5);
        assert!(config_of(&job.dir()).contains("count = 2"));
    }
}

fn config_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("config.toml")).unwrap()
}
