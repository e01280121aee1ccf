//! The network: named parameters in one flat buffer, and forward and backward written out by hand.
//! Bottom MLP (ReLU after every layer) → bags → interaction → top MLP (ReLU after all but the last).

use crate::config::{Interaction, Shape};
use crate::ops::matmul::{self, Linear};
use crate::ops::{concat, interaction, layer_quant};
use crate::plan::schedule::VIEW_ALIGNMENT;
use crate::plan::{Elem, Plan, Role, View};

/// One layer and where its parameters lie in the flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// PyTorch's name without the last part: `bot_l.0`, `bot_l.2`, `top_l.0` ….
    pub name: String,
    /// Widths and activation.
    pub linear: Linear,
    /// First element of the weight matrix.
    pub weight_at: usize,
    /// First element of the bias.
    pub bias_at: usize,
}

impl Layer {
    /// The weight matrix in a buffer with the flat layout.
    pub fn weight(&self, flat: View) -> View {
        flat.slice(self.weight_at, self.linear.inputs * self.linear.outputs)
    }

    /// The bias in a buffer with the flat layout.
    pub fn bias(&self, flat: View) -> View {
        flat.slice(self.bias_at, self.linear.outputs)
    }

    /// Where both lie, counted from the first weight.
    pub fn parts(&self) -> layer_quant::Layer {
        layer_quant::Layer { inputs: self.linear.inputs, outputs: self.linear.outputs, bias_at: self.bias_at - self.weight_at }
    }

    /// Weights and bias in a buffer with the flat layout, and what lies between them.
    pub fn span(&self, flat: View) -> View {
        flat.slice(self.weight_at, self.parts().span())
    }
}

/// The layers of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What it was made from.
    pub bottom: Vec<Layer>,
    /// The layers after the interaction.
    pub top: Vec<Layer>,
    /// Length of the flat parameter buffer, in floats.
    pub flat_len: usize,
}

impl Network {
    /// Lays out the parameters, each at an offset that a binding may have.
    pub fn new(shape: &Shape) -> Network {
        let mut at = 0;
        let mut place = |len: usize| {
            let start = at;
            at = (at + len).next_multiple_of(VIEW_ALIGNMENT);
            start
        };
        let mut layers = |prefix: &str, widths: &[usize], last_relu: bool| -> Vec<Layer> {
            let count = widths.len() - 1;
            (0..count)
                .map(|i| Layer {
                    name: format!("{prefix}.{}", 2 * i),
                    linear: Linear { inputs: widths[i], outputs: widths[i + 1], relu: last_relu || i + 1 < count },
                    weight_at: place(widths[i] * widths[i + 1]),
                    bias_at: place(widths[i + 1]),
                })
                .collect()
        };
        let (bottom, top) = (layers("bot_l", &shape.bottom, true), layers("top_l", &shape.top, false));
        Network { bottom, top, flat_len: at }
    }

    /// All layers, bottom first.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.bottom.iter().chain(&self.top)
    }
}

/// Weights and biases as the forward pass uses them: the FP32 ones or their quantized copies.
#[derive(Debug, Clone, Copy)]
pub struct Effective {
    /// Flat buffer of the matrices.
    pub weights: View,
    /// Flat buffer of the biases.
    pub biases: View,
}

/// What the forward pass leaves for the backward pass.
#[derive(Debug, Clone)]
pub struct Activations {
    /// Input of each bottom layer, and the last output.
    pub bottom: Vec<View>,
    /// `[B, K, D]`
    pub pooled: View,
    /// Input of each top layer (the first is the interaction's output), and the logits.
    pub top: Vec<View>,
}

impl Activations {
    /// The logits `[B]`.
    pub fn logits(&self) -> View {
        self.top[self.top.len() - 1]
    }
}

/// Records the network from dense features `[B, D]` and pooled embeddings `[B, K, D]` to logits, for
/// up to `batch` samples. `prefix` goes before the names of the buffers it declares.
pub fn forward(
    plan: &mut Plan,
    shape: &Shape,
    network: &Network,
    prefix: &str,
    batch: usize,
    effective: Effective,
    dense: View,
    pooled: View,
) -> Activations {
    forward_with(plan, shape, network, prefix, batch, dense, pooled, &|plan, layer, x, y| {
        let (w, b) = (layer.weight(effective.weights), layer.bias(effective.biases));
        matmul::forward(plan, &layer.name, layer.linear, batch, x, w, b, y);
    })
}

/// The same with layers as `apply` records them: it gets the layer, its input and its output.
pub fn forward_with(
    plan: &mut Plan,
    shape: &Shape,
    network: &Network,
    prefix: &str,
    batch: usize,
    dense: View,
    pooled: View,
    apply: &dyn Fn(&mut Plan, &Layer, View, View),
) -> Activations {
    let run = |plan: &mut Plan, layers: &[Layer], input: View| -> Vec<View> {
        let mut outputs = vec![input];
        for layer in layers {
            let out =
                plan.buffer(format!("{prefix}{}.out", layer.name), "[B, outputs]", batch * layer.linear.outputs, Elem::F32, Role::Scratch);
            apply(plan, layer, outputs[outputs.len() - 1], out);
            outputs.push(out);
        }
        outputs
    };
    let bottom = run(plan, &network.bottom, dense);
    let joined = plan.buffer(format!("{prefix}interaction"), "[B, top input]", batch * shape.top[0], Elem::F32, Role::Scratch);
    let dense_vector = bottom[bottom.len() - 1];
    match shape.interaction {
        Interaction::Dot => interaction::forward(plan, pairs(shape), batch, dense_vector, pooled, joined),
        Interaction::Cat => concat::forward(plan, shape.tables(), shape.dim, batch, dense_vector, pooled, joined),
    }
    let top = run(plan, &network.top, joined);
    Activations { bottom, pooled, top }
}

/// Records the way back; the three parts are called in this order, so that a caller can use what one part gives
/// while the next is computed.
#[derive(Debug)]
pub struct Backward<'a> {
    /// The model.
    pub shape: &'a Shape,
    /// Its layers.
    pub network: &'a Network,
    /// Goes before the names of the buffers that are declared.
    pub prefix: &'a str,
    /// Samples at most.
    pub batch: usize,
    /// What the forward pass used.
    pub effective: Effective,
    /// What it left.
    pub acts: &'a Activations,
    /// Receives the gradients of all parameters, flat.
    pub gradients: View,
}

impl Backward<'_> {
    /// From `d_logits` `[B]` to the gradients of the top MLP and of its input `[B, top input]`.
    pub fn top(&self, plan: &mut Plan, d_logits: View) -> View {
        self.layers(plan, &self.network.top, &self.acts.top, d_logits, true)
    }

    /// From the gradient of the interaction's output to those of the dense vector `[B, D]` and of the pooled
    /// embeddings `[B, K, D]`.
    pub fn interaction(&self, plan: &mut Plan, d_joined: View) -> [View; 2] {
        let Backward { shape, batch, acts, .. } = *self;
        let d_dense = self.scratch(plan, "d_dense_vector".into(), batch * shape.dim);
        let d_pooled = self.scratch(plan, "d_pooled".into(), batch * shape.tables() * shape.dim);
        let dense_vector = acts.bottom[acts.bottom.len() - 1];
        match shape.interaction {
            Interaction::Dot => interaction::backward(plan, pairs(shape), batch, dense_vector, acts.pooled, d_joined, d_dense, d_pooled),
            Interaction::Cat => concat::backward(plan, shape.tables(), shape.dim, batch, dense_vector, d_joined, d_dense, d_pooled),
        }
        [d_dense, d_pooled]
    }

    /// From the gradient of the dense vector to those of the bottom MLP.
    pub fn bottom(&self, plan: &mut Plan, d_dense: View) {
        self.layers(plan, &self.network.bottom, &self.acts.bottom, d_dense, false);
    }

    fn scratch(&self, plan: &mut Plan, name: String, len: usize) -> View {
        plan.buffer(format!("{}{name}", self.prefix), "[B, inputs]", len, Elem::F32, Role::Scratch)
    }

    /// Gradient before the activation of the layer above, layer by layer from the end of `layers`.
    fn layers(&self, plan: &mut Plan, layers: &[Layer], inputs: &[View], mut dz: View, needs_first: bool) -> View {
        let Backward { batch, effective, gradients, .. } = *self;
        for (i, layer) in layers.iter().enumerate().rev() {
            matmul::backward_weights(plan, &layer.name, layer.linear, dz, inputs[i], layer.weight(gradients), layer.bias(gradients));
            if i > 0 || needs_first {
                let dx = self.scratch(plan, format!("{}.d_in", layer.name), batch * layer.linear.inputs);
                let gate = (i > 0).then(|| inputs[i]);
                matmul::backward_input(plan, &layer.name, layer.linear, batch, dz, layer.weight(effective.weights), gate, dx);
                dz = dx;
            }
        }
        dz
    }
}

fn pairs(shape: &Shape) -> interaction::Pairs {
    interaction::Pairs { tables: shape.tables(), dim: shape.dim, diagonal: shape.diagonal }
}
