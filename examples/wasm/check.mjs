// check.mjs FOLDER: all questions, in node: against the ground truth, and plain C against the vectors of the processor.
import fs from 'node:fs';
import path from 'node:path';
import { load, Notes, SIMD_SCALAR, vectorsOf } from './notes.mjs';

const read = name => {
    const bytes = fs.readFileSync(path.join(process.argv[2], name));
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
};
const wasm = read('notes.wasm');
const module = await load(wasm, read('notes.blob'));
const notes = new Notes(module), plain = new Notes(module, SIMD_SCALAR);
const vectors = vectorsOf(read('questions.fbin'));
const truth = read('questions.gt.ibin'), k = new Uint32Array(truth, 0, 2)[1];
const ids = new Uint32Array(truth, 8, vectors.length * k);

let right = 0, same = 0, sum = 0, sumPlain = 0;
for (let round = 0; round < 20; round++) {
    vectors.forEach((vector, i) => {
        const { hits, us } = notes.search(vector, k), other = plain.search(vector, k);
        sum += us;
        sumPlain += other.us;
        if (round > 0) return;
        right += hits.filter((hit, j) => hit.id === ids[i * k + j]).length;
        same += JSON.stringify(hits) === JSON.stringify(other.hits) ? 1 : 0;
    });
}
const each = total => (total / vectors.length / 20).toFixed(0);
console.log(`${notes.length} notes, ${vectors.length} questions: ${right} of ${vectors.length * k} neighbours are the true ones`);
console.log(`by ${notes.simd} and by ${plain.simd}: ${same} answers are the same, bit for bit`);
console.log(`${wasm.byteLength} bytes of module; ${each(sum)} us a question, ${each(sumPlain)} in plain C`);
