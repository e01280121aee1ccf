// Calls one function of the module in a worker: {name, args} in, {value} or {error} out.
import init, * as dqrm from '/pkg/dqrm_web.js';

onmessage = async ({ data: { name, args } }) => {
  try {
    await init();
    postMessage({ value: await dqrm[name](...args) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
