//! Sums of rows: by everybody from what everybody sent, or by each row's owner, who sends the sums
//! to all. The second way is for many ranks: what a rank receives grows with the union of the rows and
//! not with the number of ranks.

use super::state::Step;
use super::{Exchange, Refused};
use crate::dist::frame::Kind;
use crate::dist::ids::RowLists;
use crate::dist::rows::tables_in;
use crate::quant::{self, gradient};

impl Exchange {
    /// Cuts this rank's rows by owner, and sums those that it owns, when either has become possible.
    pub(super) fn advance_rows(&mut self, step: u64) -> Result<(), Refused> {
        if !self.owned {
            return Ok(());
        }
        let state = self.step(step);
        if state.union.is_some()
            && let Some(coded) = state.own_rows.take()
        {
            self.send_to_owners(step, &coded);
        }
        let me = self.seat.rank;
        let state = self.step(step);
        if state.union.is_some() && state.row_sums[me].is_none() && state.rows.iter().all(Option::is_some) {
            self.sum_owned(step)?;
        }
        Ok(())
    }

    fn send_to_owners(&mut self, step: u64, coded: &crate::dist::rows::Coded) {
        let (me, world, form) = (self.seat.rank, self.seat.world, self.row_form);
        let state = self.step(step);
        let (Some(union), Some(lists)) = (&state.union, &state.ids[me]) else { return };
        let pieces: Vec<(Vec<u8>, usize)> = (0..world)
            .map(|owner| union.within(me, &union.owned(owner, world)))
            .map(|run| (form.write(coded, lists, &run), form.scale_bytes(lists, &run)))
            .collect();
        for (owner, (payload, scales)) in pieces.into_iter().enumerate() {
            self.ledger.gradient.count(Kind::Rows, payload.len(), scales);
            if owner == me {
                self.step(step).rows[me] = Some(payload);
            } else {
                self.send(Some(owner), Kind::Rows, 0, step, payload, scales);
            }
        }
    }

    fn sum_owned(&mut self, step: u64) -> Result<(), Refused> {
        let (me, world, form) = (self.seat.rank, self.seat.world, self.row_form);
        let Some(mut state) = self.steps.remove(&step) else { return Ok(()) };
        let Some(union) = &state.union else { return Ok(()) };
        let run = union.owned(me, world);
        let mut sums = vec![0.0; run.len() * form.dim];
        for (rank, (payload, lists)) in state.rows.iter().zip(&state.ids).enumerate() {
            let (Some(payload), Some(lists)) = (payload, lists) else { continue };
            let mine = union.within(rank, &run);
            form.check(payload, lists, &mine).map_err(|reason| Refused { rank, reason })?;
            let places = &union.places[rank];
            form.add(payload, lists, &mine, |row| places[row] as usize - run.start, &mut sums);
        }
        let payload = self.quantize_rows(&sums, &union.lists, &run);
        let scales = form.scale_bytes(&union.lists, &run);
        self.send(None, Kind::RowSums, 0, step, payload.clone(), scales);
        state.row_sums[me] = Some(payload);
        self.steps.insert(step, state);
        Ok(())
    }

    /// The gradients of the union's rows, `[rows, D]`.
    pub(super) fn row_sums(&self, state: &Step) -> Result<Vec<f32>, Refused> {
        let (form, world) = (self.row_form, self.seat.world);
        let Some(union) = &state.union else { return Ok(Vec::new()) };
        let mut sums = vec![0.0; union.len() * form.dim];
        let mut add = |rank: usize, payload: &[u8], lists: &RowLists, run: std::ops::Range<usize>, places: Option<&[u32]>| {
            form.check(payload, lists, &run).map_err(|reason| Refused { rank, reason })?;
            form.add(payload, lists, &run, |row| places.map_or(row, |p| p[row] as usize), &mut sums);
            Ok(())
        };
        for rank in 0..world {
            if let (true, Some(payload)) = (self.owned, &state.row_sums[rank]) {
                add(rank, payload, &union.lists, union.owned(rank, world), None)?;
            } else if let (Some(payload), Some(lists)) = (&state.rows[rank], &state.ids[rank]) {
                add(rank, payload, lists, 0..lists.len(), Some(&union.places[rank]))?;
            }
        }
        if let Some(average) = &state.scales[2].average {
            for (table, rows) in tables_in(&union.lists, &(0..union.len())) {
                sums[rows.start * form.dim..rows.end * form.dim].iter_mut().for_each(|sum| *sum *= average[table]);
            }
        }
        Ok(sums)
    }

    /// Counts the scales among the rows that came, now that it is known which rows they are.
    pub(super) fn count_row_scales(&mut self, state: &Step) {
        let (form, me, world) = (self.row_form, self.seat.rank, self.seat.world);
        let Some(union) = &state.union else { return };
        for (rank, lists) in state.ids.iter().enumerate().filter(|(rank, _)| *rank != me) {
            let Some(lists) = lists else { continue };
            let scales = if self.owned {
                let sent = form.scale_bytes(lists, &union.within(rank, &union.owned(me, world)));
                sent + form.scale_bytes(&union.lists, &union.owned(rank, world))
            } else {
                form.scale_bytes(lists, &(0..lists.len()))
            };
            self.ledger.received.were_scales(scales);
        }
    }

    /// Quantizes sums of rows, a scale for each table in the run.
    fn quantize_rows(&self, sums: &[f32], lists: &RowLists, run: &std::ops::Range<usize>) -> Vec<u8> {
        let form = self.row_form;
        if form.bits == 32 {
            return bytemuck::cast_slice(sums).to_vec();
        }
        let n = gradient::max_code(form.bits);
        let (mut scales, mut codes) = (Vec::new(), Vec::with_capacity(run.len() * form.row_bytes()));
        for (_, rows) in tables_in(lists, run) {
            let values = &sums[(rows.start - run.start) * form.dim..(rows.end - run.start) * form.dim];
            let scale = quant::scale(gradient::max_abs(values), n);
            scales.extend_from_slice(&scale.to_le_bytes());
            gradient::quantize(values, scale, form.bits, &mut codes);
        }
        scales.extend_from_slice(&codes);
        scales
    }
}
