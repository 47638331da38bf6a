// Prints every event of a topic that counts, until it holds all that was committed at the source before a time; by the
// rules of docs/reference/reading-without-the-sdk.md.
// node reader.js <brokers> <domain>.<aggregate>.v<major> <window in hours> <time, RFC 3339, UTC>
"use strict";
const { Kafka, CompressionCodecs, CompressionTypes, logLevel } = require("kafkajs");
const lz4 = require("lz4js");

const [brokers, topic, windowHours, until] = process.argv.slice(2);
CompressionCodecs[CompressionTypes.LZ4] = () => ({ decompress: async (bytes) => Buffer.from(lz4.decompress(bytes)) });
const kafka = new Kafka({ clientId: "reader", brokers: brokers.split(","), logLevel: logLevel.ERROR });
// It reads committed transactions only, which is KafkaJS's default.
const consumer = kafka.consumer({ groupId: `reader-${process.pid}-${Date.now()}` });

const marks = new Map(); // in a service: rows of its database, written in one transaction with effect and offset
const next = {}; // the offset behind what was read, by partition
let progress = { heartbeat_at: "", end_offsets: {} };
const aggregateType = topic.split(".").at(-2); // <domain>.<aggregate>.v<major>

function apply({ key, value, timestamp, headers }) {
  const { ce_id, ce_type, ce_sequence, ce_rowcastsource } = headers;
  if (!key || !value || !ce_id || !ce_type || !ce_sequence) throw new Error(`${key}: not an event`);
  const aggregate = `${ce_rowcastsource}/${key}`;
  const version = BigInt(ce_sequence.toString());
  const mark = marks.get(aggregate) ?? 0n;
  if (version <= mark) return; // applied before
  const compacted = Date.now() - Number(timestamp) > windowHours * 3_600_000;
  if (version > mark + 1n && !compacted && !ce_type.toString().includes(".snapshot.")) {
    throw new Error(`${aggregate}: version ${version} follows ${mark}: an event is lost`);
  }
  marks.set(aggregate, version);
  process.stdout.write(`${ce_id} ${value}\n`);
}

function complete() {
  if (progress.halted?.some(({ aggregate }) => aggregate === aggregateType)) return false; // until it goes on
  const ends = Object.entries(progress.end_offsets[topic] ?? {});
  return progress.heartbeat_at >= until && ends.every(([partition, end]) => (next[partition] ?? 0) >= end);
}

async function main() {
  await consumer.connect();
  await consumer.subscribe({ topics: [topic, "rowcast.progress"], fromBeginning: true });
  const ended = new Promise((resolve, reject) => {
    const eachMessage = async ({ topic: from, partition, message }) => {
      try {
        if (from === topic) {
          apply(message);
          next[partition] = Number(message.offset) + 1;
        } else if (topic in JSON.parse(message.value).end_offsets) progress = JSON.parse(message.value);
        if (complete()) resolve();
      } catch (error) {
        reject(error);
      }
    };
    consumer.run({ autoCommit: false, eachMessage }).catch(reject);
  });
  await ended.finally(() => consumer.disconnect());
}

main().catch((error) => process.exit((console.error(error.message), 1)));
