//! The flags of workers, and how a run with them is started.

use super::options::{bits, choice};
use crate::config::{Config, GradientScale, LrRule, RowSums};
use crate::dist::team::Patience;
use crate::dist::transport::network::Network;
use crate::error::Result;
use crate::quant::Bits;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// How workers reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Local {
    /// Threads of one process
    #[default]
    Inproc,
    /// Processes over TCP
    Tcp,
    /// Processes that mpirun or srun started, through MPI
    #[cfg(feature = "mpi")]
    Mpi,
}

/// Flags of workers.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Workers")]
pub struct WorkerArgs {
    /// Train with so many workers on this computer, each with --batch samples a step
    #[arg(long, value_name = "N", value_parser = count)]
    pub workers: Option<usize>,
    /// How workers reach each other [default: inproc with --workers, tcp where they were launched]
    #[arg(long, value_name = "WAY", value_enum)]
    pub transport: Option<Local>,
    /// Play so many workers one after another on one device, with the arithmetic of real ones
    #[arg(long, value_name = "N", value_parser = count, conflicts_with_all = ["workers", "rank"])]
    pub simulate_workers: Option<usize>,
    /// Slow the workers' links down to this rate and latency: 1Gbps,0.2ms (with --simulate-workers: say what a step would take)
    #[arg(long, value_name = "RATE,LATENCY", value_parser = network)]
    pub network: Option<Network>,
    /// Bits of gradients on the wire: 4, 8, 16 or none [default: the file's, else 8]
    #[arg(long, value_name = "BITS", value_parser = bits)]
    pub gradients: Option<Bits>,
    /// Bits of the MLPs' gradients on the wire [default: those of --gradients]
    #[arg(long, value_name = "BITS", value_parser = bits)]
    pub mlp_gradients: Option<Bits>,
    /// Forget what quantization leaves out of the MLPs' gradients, instead of adding it to the next ones
    #[arg(long)]
    pub no_feedback: bool,
    /// Whose scale quantizes gradients: own, or the average of all (as published) [default: the file's, else own]
    #[arg(long, value_name = "own|average", value_parser = choice::<GradientScale>)]
    pub gradient_scale: Option<GradientScale>,
    /// Who sums rows: everybody (gather), each row's owner, or auto (owner above 4 workers)
    #[arg(long, value_name = "auto|gather|owner", value_parser = choice::<RowSums>)]
    pub row_sums: Option<RowSums>,
    /// What the workers' number does to the learning rate: none, linear or sqrt [default: the file's, else none]
    #[arg(long, value_name = "RULE", value_parser = choice::<LrRule>)]
    pub lr_rule: Option<LrRule>,
    /// Compare the replicas every so many steps, 0 for never [default: the file's, else 1000]
    #[arg(long, value_name = "N")]
    pub check_every: Option<u64>,

    /// The rank of a process that rank 0 started
    #[arg(long, hide = true, requires = "local_port")]
    pub local_rank: Option<usize>,
    /// Where rank 0 listens
    #[arg(long, hide = true)]
    pub local_port: Option<u16>,

    /// This worker's rank, for a job on several computers [default: from torchrun, MPI, Slurm or Kubernetes]
    #[arg(long, value_name = "R", conflicts_with = "workers")]
    pub rank: Option<usize>,
    /// Workers of the job
    #[arg(long, value_name = "N", conflicts_with = "workers")]
    pub world: Option<usize>,
    /// Where rank 0 listens while the job starts
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "workers")]
    pub rdzv: Option<String>,
    /// A name that all workers of the job share
    #[arg(long, value_name = "NAME", conflicts_with = "workers")]
    pub job: Option<String>,
    /// How often the job was started before
    #[arg(long, value_name = "N", conflicts_with = "workers")]
    pub attempt: Option<u32>,
    /// A file with the job's secret (or the environment variable DQRM_SECRET)
    #[arg(long, value_name = "FILE", conflicts_with = "workers")]
    pub secret_file: Option<PathBuf>,
    /// Talk to other computers without encryption; without a secret, to anybody who comes
    #[arg(long)]
    pub insecure_network: bool,
    /// Seconds to wait for all workers to start [default: 60]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub connect_timeout: Option<Duration>,
    /// Seconds to wait for a peer in a step [default: 30]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub step_timeout: Option<Duration>,
    /// Seconds to wait for a peer around evaluations, checkpoints and the start [default: 600]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub long_timeout: Option<Duration>,
    /// Seconds after which a silent peer is given up [default: 10]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub silence_timeout: Option<Duration>,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=crate::config::MAX_WORKERS).contains(&n) => Ok(n),
        _ => Err(format!("a number from 1 to {} is needed", crate::config::MAX_WORKERS)),
    }
}

fn network(text: &str) -> Result<Network, String> {
    text.parse()
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.1..=1e6).contains(&s) => Ok(Duration::from_secs_f64(s)),
        _ => Err("seconds from 0.1 to 1000000 are needed".into()),
    }
}

impl WorkerArgs {
    /// Overrides the settings that the flags name.
    pub(super) fn apply(&self, config: &mut Config) {
        let w = &mut config.workers;
        if let Some(n) = self.workers.or(self.simulate_workers).or(self.world) {
            w.count = n;
        }
        if let Some(bits) = self.gradients {
            (w.row_bits, w.mlp_bits) = (bits, bits);
        }
        w.mlp_bits = self.mlp_gradients.unwrap_or(w.mlp_bits);
        w.feedback &= !self.no_feedback;
        w.scale = self.gradient_scale.unwrap_or(w.scale);
        w.rows = self.row_sums.unwrap_or(w.rows);
        w.lr_rule = self.lr_rule.unwrap_or(w.lr_rule);
        w.check_every = self.check_every.unwrap_or(w.check_every);
    }

    /// How long to wait for peers.
    pub(super) fn patience(&self) -> Patience {
        let plain = Patience::default();
        Patience { step: self.step_timeout.unwrap_or(plain.step), long: self.long_timeout.unwrap_or(plain.long) }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::options::parse;
    use crate::config::{GradientScale, LrRule, RowSums};
    use crate::quant::Bits;

    #[test]
    fn flags_of_workers_override_the_settings() {
        let flags = "--workers 4 --gradients 4 --mlp-gradients none --no-feedback --row-sums owner --lr-rule sqrt --check-every 7";
        let config = parse(flags).unwrap().config().unwrap();
        let w = &config.workers;
        assert_eq!((w.count, w.row_bits, w.mlp_bits, w.feedback), (4, Bits::B4, Bits::None, false));
        assert_eq!((w.rows, w.lr_rule, w.check_every, w.lr_factor()), (RowSums::Owner, LrRule::Sqrt, 7, 2.0));
        let config = parse("--simulate-workers 8 --gradient-scale average").unwrap().config().unwrap();
        assert_eq!((config.workers.count, config.workers.scale, config.workers.owned()), (8, GradientScale::Average, false));
        assert!(!parse("").unwrap().config().unwrap().workers.on());
    }

    #[test]
    fn wrong_flags_of_workers_are_explained() {
        let refused = |flags: &str| parse(flags).map_or_else(|e| e, |args| args.config().unwrap_err().to_string());
        assert!(refused("--workers 0").contains("from 1 to 4096"));
        assert!(refused("--workers 2 --network 1Gb").contains("1Gbps"));
        assert!(refused("--workers 2 --gradients 2").contains("4, 8 or 16 bits"));
        assert!(refused("--workers 2 --simulate-workers 2").contains("cannot be used with"));
        assert!(refused("--workers 2 --rank 1").contains("cannot be used with"));
        assert!(refused("--workers 2 --gradient-scale average --row-sums owner").contains("gather"));
        assert!(refused("--workers 2 --gradient-scale average --gradients 16").contains("scale = \"own\""));
        assert!(refused("--workers 300 --gradient-scale average").contains("at most 256"));
        assert!(refused("--workers 2 --method lsq").contains("do not exchange"));
        assert!(refused("--step-timeout never").contains("seconds"));
    }
}
