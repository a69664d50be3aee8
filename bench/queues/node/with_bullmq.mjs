// BullMQ: concurrency 100; its own programs have the same roles as those of ../peers/peer.py describes.

import { Queue, Worker } from "bullmq";
import fs from "node:fs";

const connection = { host: process.env.BENCH_HOST, port: Number(process.env.BENCH_PORT) };
const keep = process.env.BENCH_RESULTS === "1" ? { age: 3600 } : true; // true: a job that is done is removed
const options = { removeOnComplete: keep, removeOnFail: false };
const SLOTS = 4096, TASKS = 50, CONCURRENCY = 100, PAUSE = 30;
const tally = fs.openSync(process.env.BENCH_TALLY, "r+");
const bytes = Buffer.alloc(8);
const place = (process.pid % SLOTS) * 8;
let done = 0n;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
// monotonic seconds, as Python's time.monotonic
const now = () => Number(process.hrtime.bigint()) / 1e9;

function count() {
  bytes.writeBigInt64LE((done += 1n));
  fs.writeSync(tally, bytes, 0, 8, place);
}

function stamp(number) {
  const moment = Buffer.alloc(8);
  moment.writeDoubleLE(now());
  fs.writeSync(tally, moment, 0, 8, (SLOTS + number) * 8);
}

function stamped(number) {
  const moment = Buffer.alloc(8);
  fs.readSync(tally, moment, 0, 8, (SLOTS + number) * 8);
  return moment.readDoubleLE();
}

async function run(job) {
  const number = job.data.number;
  if (job.name === "stamp") stamp(number);
  if (job.name === "sleep") {
    if (number === 0) stamp(0);
    await pause(50);
  }
  count();
  return job.name === "result" ? number : undefined;
}

async function pushMany(queue, kind, amount) {
  for (let first = 0; first < amount; first += 1000) {
    const some = [];
    for (let number = first; number < Math.min(amount, first + 1000); number++)
      some.push({ name: kind, data: { number }, opts: options });
    await queue.addBulk(some);
  }
}

async function main(role, amount, kind) {
  if (role === "work") {
    new Worker("bench", run, { connection, concurrency: CONCURRENCY });
    return;
  }
  const queue = new Queue("bench", { connection });
  const push = (number, name = kind) => queue.add(name, { number }, options);
  await push(0, "noop");
  const start = now();
  if (role === "pickup") {
    const waits = [];
    for (let number = 0; number < amount; number++) {
      await pause(PAUSE);
      const pushed = now();
      await push(number);
      while (!stamped(number)) await pause(2);
      waits.push(stamped(number) - pushed);
    }
    console.log(JSON.stringify({ waits }));
  } else {
    if (role === "pushmany") await pushMany(queue, kind, amount);
    else {
      let next = 0;
      const one = async () => {
        while (next < amount) await push(next++);
      };
      await Promise.all(Array.from({ length: TASKS }, one));
    }
    console.log(JSON.stringify({ seconds: now() - start }));
  }
  await queue.close();
  process.exit(0);
}

const [role, amount, kind] = process.argv.slice(2);
await main(role, Number(amount), kind);
