use super::*;
use crate::config::{Model, RowSums};
use crate::dist::frame::Reader;
use crate::ops::case::random;
use crate::quant::{self, Bits, gradient};
use crate::rng::Stream;

/// Ranks whose frames are carried in memory.
struct Hub {
    ranks: Vec<Exchange>,
    layout: Arc<Layout>,
}

fn layout() -> Layout {
    let rows = Some(vec![50, 3, 900, 1]);
    let model = Model { dense: Some(5), rows, dim: Some(4), bottom: Some(vec![7, 4]), top: Some(vec![9, 1]), ..Model::default() };
    Layout::new(&model.shape(None, None).unwrap())
}

fn workers(count: usize) -> Workers {
    Workers { count, ..Workers::default() }
}

const MOST: [u64; 4] = [20, 3, 20, 1];

impl Hub {
    fn new(workers: &Workers) -> Hub {
        let layout = Arc::new(layout());
        let rank = |rank| Exchange::new(Seat { rank, world: workers.count, attempt: 0 }, layout.clone(), workers, MOST.to_vec(), 0);
        Hub { ranks: (0..workers.count).map(rank).collect(), layout: layout.clone() }
    }

    /// Carries frames until nobody has anything to say; `later` turns the order of the receivers around.
    fn deliver(&mut self, later: bool) {
        let world = self.ranks.len();
        let mut limits = Limits::none();
        self.ranks[0].allow(&mut limits);
        while self.ranks.iter().any(|r| !r.out.is_empty()) {
            for from in 0..world {
                for out in self.ranks[from].outgoing() {
                    let mut to: Vec<usize> = (0..world).filter(|&to| to != from && out.to.is_none_or(|only| only == to)).collect();
                    if later {
                        to.reverse();
                    }
                    for to in to {
                        let mut reader = Reader::new(limits.clone(), from as u32, 0);
                        reader.push(&out.bytes);
                        let frame = reader.next_frame().unwrap().unwrap();
                        assert_eq!(self.ranks[to].accept(from, frame).unwrap(), None);
                    }
                }
            }
        }
    }

    /// Random gradients of a rank: rows with their ids, and both parts, as codes.
    fn gradient(&self, rank: usize, step: u64) -> (RowLists, Coded, [Coded; 2]) {
        let exchange = &self.ranks[rank];
        let stream = Stream::new(step, rank as u64);
        let mut lists = RowLists::default();
        for (k, &rows) in self.layout.rows.iter().enumerate() {
            let all = stream.sub(k as u64);
            let mut chosen: Vec<u32> = (0..MOST[k].min(rows)).map(|i| (all.uniform(i) * rows as f64) as u32).collect();
            chosen.sort_unstable();
            chosen.dedup();
            lists.push_table(if rank == 1 && k == 0 { &[] } else { &chosen });
        }
        let values = random(&format!("rows {rank} {step}"), lists.len() * 4);
        let tables: Vec<usize> = (0..4).map(|k| lists.table(k).len() * 4).collect();
        let rows = coded(&values, &tables, exchange.row_form.bits);
        let parts = Part::ALL.map(|part| {
            let groups: Vec<usize> = self.layout.part(part).iter().flat_map(|t| vec![t.len; t.groups]).collect();
            let values = random(&format!("{part:?} {rank} {step}"), groups.iter().sum());
            coded_part(&values, self.layout.part(part), exchange.chunk_form.bits)
        });
        (lists, rows, parts)
    }

    fn post(&mut self, rank: usize, step: u64) {
        let (lists, rows, [top, bottom]) = self.gradient(rank, step);
        let exchange = &mut self.ranks[rank];
        exchange.post_ids(step, lists).unwrap();
        exchange.post_part(step, Part::Top, &top).unwrap();
        exchange.post_rows(step, rows).unwrap();
        exchange.post_part(step, Part::Bottom, &bottom).unwrap();
        exchange.post_report(step, Report { samples: 1, loss: 0.25, ..Report::default() }).unwrap();
    }

    /// A whole step of all ranks, with the sums of each.
    fn step(&mut self, step: u64, later: bool) -> Vec<Merged> {
        for i in 0..self.ranks.len() {
            let rank = if later { self.ranks.len() - 1 - i } else { i };
            self.post(rank, step);
            if later {
                self.deliver(later);
            }
        }
        self.deliver(later);
        self.ranks.iter_mut().map(|r| r.take(step).unwrap().unwrap()).collect()
    }
}

/// Codes of runs of values, a scale for each run.
fn coded(values: &[f32], runs: &[usize], bits: u32) -> Coded {
    let mut coded = Coded::default();
    let mut rest = values;
    for &len in runs {
        let (now, later) = rest.split_at(len);
        rest = later;
        if bits == 32 {
            coded.bytes.extend(now.iter().flat_map(|v| v.to_le_bytes()));
        } else {
            let scale = quant::scale(gradient::max_abs(now), gradient::max_code(bits));
            coded.scales.push(scale);
            gradient::quantize(now, scale, bits, &mut coded.bytes);
        }
    }
    coded
}

/// The same by tensors, whose groups follow each other without a gap.
fn coded_part(values: &[f32], tensors: &[crate::dist::layout::Grouped], bits: u32) -> Coded {
    let form = ChunkForm { bits, scales: bits < 32 };
    let all = super::super::layout::Layout { rows: vec![], dim: 1, parts: [tensors.to_vec(), vec![]], flat_len: 0 };
    let chunk = &all.chunks(Part::Top, 1, bits)[0];
    let payload = form.quantize(values, chunk, tensors, &mut vec![0.0; values.len()]);
    let (scales, bytes) = payload.split_at(form.scale_bytes(chunk));
    Coded { scales: scales.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(), bytes: bytes.to_vec() }
}

fn kinds() -> Vec<Workers> {
    let mut kinds = Vec::new();
    for count in [1, 2, 3, 5] {
        for bits in [Bits::None, Bits::B4, Bits::B8, Bits::B16] {
            for rows in [RowSums::Gather, RowSums::Owner] {
                kinds.push(Workers { row_bits: bits, mlp_bits: bits, rows, ..workers(count) });
            }
        }
    }
    kinds
}

#[test]
fn all_ranks_come_to_the_same_sums_in_whatever_order_frames_come() {
    for workers in kinds() {
        let [mut hub, mut other] = [Hub::new(&workers), Hub::new(&workers)];
        for step in 0..3 {
            let merged = hub.step(step, false);
            assert!(merged.iter().all(|m| *m == merged[0]), "{workers:?}");
            assert_eq!(merged, other.step(step, true), "{workers:?}");
            assert_eq!(merged[0].reports.len(), workers.count);
        }
    }
}

#[test]
fn sums_are_those_of_what_each_rank_computed() {
    for workers in kinds() {
        let mut hub = Hub::new(&workers);
        let merged = hub.step(0, false).remove(0);
        let mut rows = std::collections::BTreeMap::<(usize, u32), [f32; 4]>::new();
        for rank in 0..workers.count {
            let (lists, ..) = hub.gradient(rank, 0);
            let values = random(&format!("rows {rank} 0"), lists.len() * 4);
            for k in 0..4 {
                for (i, &row) in lists.table(k).iter().enumerate() {
                    let at = (lists.offsets()[k] + i) * 4;
                    let sum = rows.entry((k, row)).or_default();
                    sum.iter_mut().zip(&values[at..at + 4]).for_each(|(s, v)| *s += v);
                }
            }
        }
        let keys: Vec<(usize, u32)> = (0..4).flat_map(|k| merged.rows.table(k).iter().map(move |&r| (k, r))).collect();
        assert_eq!(keys, rows.keys().copied().collect::<Vec<_>>());
        // half a step of the grid for each rank, and for the sum when it is quantized again
        let bits = workers.row_bits.width();
        let half = if bits == 32 { 1e-6 } else { 0.5 / gradient::max_code(bits) as f32 };
        let allowed = half * 2.0 * workers.count as f32 * 1.01;
        for (found, wanted) in merged.row_gradients.iter().zip(rows.values().flatten()) {
            assert!((found - wanted).abs() <= allowed, "{found} {wanted} {workers:?}");
        }
    }
}

#[test]
fn what_sums_leave_out_comes_later() {
    // The same gradient every step: with error feedback of the owners the mean of the sums approaches the sum.
    let off = |feedback: bool| {
        let workers = Workers { feedback, mlp_bits: Bits::B4, ..workers(3) };
        let mut hub = Hub::new(&workers);
        let parts: Vec<[Coded; 2]> = (0..3).map(|r| hub.gradient(r, 0).2).collect();
        let form = ChunkForm { bits: 4, scales: true };
        let mut wanted = vec![0.0; hub.layout.flat_len];
        for part in Part::ALL {
            for coded in &parts {
                for chunk in &hub.ranks[0].chunks[part as usize] {
                    let payload = form.write(&coded[part as usize], chunk);
                    form.add_flat(&payload, chunk, hub.layout.part(part), None, &mut wanted);
                }
            }
        }
        let mut mean = vec![0.0; wanted.len()];
        for step in 0..40 {
            for (rank, [top, bottom]) in parts.iter().enumerate() {
                let (lists, rows, _) = hub.gradient(rank, step);
                hub.ranks[rank].post_ids(step, lists).unwrap();
                hub.ranks[rank].post_rows(step, rows).unwrap();
                hub.ranks[rank].post_part(step, Part::Top, top).unwrap();
                hub.ranks[rank].post_part(step, Part::Bottom, bottom).unwrap();
                hub.ranks[rank].post_report(step, Report::default()).unwrap();
            }
            hub.deliver(false);
            for rank in &mut hub.ranks {
                let merged = rank.take(step).unwrap().unwrap();
                mean.iter_mut().zip(&merged.mlps).for_each(|(m, v)| *m += v / 120.0);
            }
        }
        mean.iter().zip(&wanted).map(|(m, w)| (m - w).abs()).fold(0.0, f32::max)
    };
    let (with, without) = (off(true), off(false));
    assert!(with < 0.2 * without, "{with} with feedback, {without} without");
}

#[test]
fn the_published_mode_clips_at_the_mean_scale_and_sums_integers() {
    let workers = Workers { scale: GradientScale::Average, ..workers(2) };
    let mut hub = Hub::new(&workers);
    let (groups, tables) = (Part::ALL.map(|p| hub.layout.groups(p)), 4);
    let mut lists = RowLists::default();
    [&[7u32][..], &[], &[], &[]].iter().for_each(|rows| lists.push_table(rows));
    for (rank, exchange) in hub.ranks.iter_mut().enumerate() {
        let scale = [1.0, 3.0][rank];
        exchange.post_ids(0, lists.clone()).unwrap();
        exchange.post_scales(0, Scaled::Rows, &vec![scale; tables]).unwrap();
        for part in Part::ALL {
            exchange.post_scales(0, Scaled::Part(part), &vec![scale; groups[part as usize]]).unwrap();
        }
    }
    hub.deliver(false);
    for exchange in &mut hub.ranks {
        assert_eq!(exchange.averaged(0, Scaled::Rows), Some(vec![2.0; tables]));
        exchange.post_rows(0, Coded { scales: vec![2.0; tables], bytes: vec![127, 0x80, 1, 0xff] }).unwrap();
        for part in Part::ALL {
            let coded = Coded { scales: vec![2.0; groups[part as usize]], bytes: vec![100; exchange.layout.bytes(part, 8)] };
            exchange.post_part(0, part, &coded).unwrap();
        }
        exchange.post_report(0, Report::default()).unwrap();
    }
    hub.deliver(false);
    let merged: Vec<Merged> = hub.ranks.iter_mut().map(|r| r.take(0).unwrap().unwrap()).collect();
    assert_eq!(merged[0], merged[1]);
    assert_eq!(merged[0].row_gradients, [508.0, -512.0, 4.0, -4.0], "2 (127 + 127) …");
    let tensor = &hub.layout.part(Part::Top)[0];
    assert_eq!(merged[0].mlps[tensor.at], 400.0, "sums beyond 8 bits");
}

#[test]
fn every_byte_is_counted_once() {
    for workers in kinds() {
        let mut hub = Hub::new(&workers);
        hub.step(0, false);
        let all = hub.ranks.iter().map(Exchange::ledger).fold(Ledger::default(), Ledger::plus);
        assert_eq!(all.sent, all.received, "{workers:?}");
    }
}

/// A frame of rank 1 to rank 0 of two.
fn frame(kind: Kind, part: u8, step: u64, payload: Vec<u8>) -> Frame {
    Frame { kind, part, attempt: 0, from: 1, step, payload }
}

/// Rank 0 after both ranks' ids and its own values of step 0.
fn ready(workers: &Workers) -> Hub {
    let mut hub = Hub::new(workers);
    hub.post(0, 0);
    hub.ranks[0].outgoing();
    let lists = hub.gradient(1, 0).0;
    hub.ranks[1].post_ids(0, lists).unwrap();
    hub.deliver(false);
    hub
}

#[test]
fn lies_are_refused_and_name_their_sender() {
    let refuses = |hub: &mut Hub, frame: Frame, says: &str| {
        let refused = hub.ranks[0].accept(1, frame).and_then(|_| hub.ranks[0].take(0)).unwrap_err();
        assert_eq!(refused.rank, 1);
        assert!(refused.reason.contains(says), "`{}` does not say `{says}`", refused.reason);
    };
    let all = workers(2);
    let at = |frame: Frame, says: &str| refuses(&mut ready(&all), frame, says);
    at(frame(Kind::Ids, 0, 0, vec![0; 4]), "twice");
    at(frame(Kind::Ids, 0, 1, vec![9; 4]), "ids that cannot be read");
    at(frame(Kind::Rows, 0, 3, vec![]), "of step 3, while step 0 is under way here");
    at(frame(Kind::Rows, 1, 0, vec![]), "a part 1 that does not exist");
    at(frame(Kind::Chunk, 2, 0, vec![]), "a part 2 that does not exist");
    at(frame(Kind::Chunk, 0, 0, vec![0; 3]), "3 bytes of MLP gradients, which take");
    at(frame(Kind::Report, 0, 0, vec![0; 3]), "a report of 3 bytes");
    at(frame(Kind::Report, 0, 0, [&[0; 8][..], &[2, 0, 0, 0], &[0; 16]].concat()), "the flag 2");
    at(frame(Kind::Scales, 0, 0, vec![]), "scales, which travel with the values");
    let nan = f32::NAN.to_le_bytes();
    let chunk = |hub: &Hub| hub.ranks[0].chunks[0][0].clone();
    let bytes = |hub: &Hub| bytes_in(&chunk(hub)) + 4 * groups_in(&chunk(hub));
    let hub = ready(&all);
    at(frame(Kind::Chunk, 0, 0, [&nan[..], &vec![0; bytes(&hub) - 4]].concat()), "a scale that is not finite");

    // what is only looked at when everything is there
    let with_rows = |workers: &Workers, payload: Vec<u8>, says: &str| {
        let mut hub = ready(workers);
        let (_, _, [top, bottom]) = hub.gradient(1, 0);
        hub.ranks[1].post_part(0, Part::Top, &top).unwrap();
        hub.ranks[1].post_part(0, Part::Bottom, &bottom).unwrap();
        hub.ranks[1].post_report(0, Report::default()).unwrap();
        // rank 1 lacks the chunks of rank 0: what it would sum is posted again
        hub.ranks[0].out.clear();
        for part in Part::ALL {
            let coded = &hub.gradient(0, 0).2[part as usize];
            let payload = hub.ranks[0].chunk_form.write(coded, &hub.ranks[0].chunks[part as usize][1]);
            let frame = Frame { from: 0, ..frame(Kind::Chunk, part as u8, 0, payload) };
            hub.ranks[1].accept(0, frame).unwrap();
        }
        hub.deliver(false);
        refuses(&mut hub, frame(Kind::Rows, 0, 0, payload), says);
    };
    with_rows(&all, vec![1; 7], "7 bytes for");
    let fp32 = Workers { row_bits: Bits::None, ..all.clone() };
    let len = ready(&fp32).gradient(1, 0).0.len();
    with_rows(&fp32, [&nan[..], &vec![0; 16 * len - 4]].concat(), "not finite for its row 0");
}

#[test]
fn peers_may_be_a_step_ahead_and_no_further() {
    let mut hub = Hub::new(&workers(2));
    let ids = |hub: &Hub, step| {
        let mut payload = Vec::new();
        ids::encode(&hub.gradient(1, step).0, &hub.layout.rows, &mut payload);
        frame(Kind::Ids, 0, step, payload)
    };
    for step in 0..=AHEAD {
        let frame = ids(&hub, step);
        hub.ranks[0].accept(1, frame).unwrap();
    }
    let frame = ids(&hub, AHEAD + 1);
    assert!(hub.ranks[0].accept(1, frame).unwrap_err().reason.contains("of step 3"));
}

#[test]
fn what_is_missing_is_named() {
    let mut hub = ready(&workers(2));
    let missing = hub.ranks[0].missing(0);
    assert_eq!(
        missing.iter().map(|m| m.0).collect::<Vec<_>>(),
        ["row gradients", "gradients of the top MLP", "gradients of the bottom MLP", "reports"]
    );
    assert!(missing.iter().all(|(_, ranks)| *ranks == [1]));
}

#[test]
fn other_frames_are_given_back() {
    let mut hub = Hub::new(&workers(2));
    let other = frame(Kind::Gather, 0, 5, vec![1]);
    assert_eq!(hub.ranks[0].accept(1, other.clone()).unwrap(), Some(other));
}
