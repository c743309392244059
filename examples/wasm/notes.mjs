// notes.mjs: the module of notes.c with JavaScript's own types. For the page, and for node.

export const SIMD_BEST = 0, SIMD_SCALAR = 1;

export async function load(wasm, blob) {
    const { instance } = await WebAssembly.instantiate(wasm, {});
    const c = instance.exports;
    const data = c.take_memory(blob.byteLength);
    new Uint8Array(c.memory.buffer).set(new Uint8Array(blob), data);
    return { c, data, size: blob.byteLength };
}

function textAt(c, at) {
    const bytes = new Uint8Array(c.memory.buffer, at);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
}

// The blob is read where it lies in the module's memory, by any number of these.
export class Notes {
    constructor({ c, data, size }, simd = SIMD_BEST) {
        this.c = c;
        this.db = c.open(data, size, simd);
        if (this.db === 0) throw new Error('the blob cannot be opened');
        this.length = c.length(this.db);
        this.simd = textAt(c, c.simd_name(this.db));
        this.vector = 0;
    }

    // The k nearest to a Float32Array: id, score, text, and how long it took.
    search(vector, k) {
        const c = this.c;
        if (this.vector === 0) this.vector = c.take_memory(vector.byteLength);
        new Float32Array(c.memory.buffer, this.vector, vector.length).set(vector);
        const begin = performance.now();
        const count = c.search(this.db, this.vector, k);
        const us = (performance.now() - begin) * 1000;
        if (count < 0) throw new Error('the search returned ' + count);
        const hits = [];
        for (let i = 0; i < count; i++)
            hits.push({ id: c.hit_id(i), score: c.hit_score(i), text: textAt(c, c.hit_text(i)) });
        return { hits, us };
    }
}

// Rows of an fbin file.
export function vectorsOf(bytes) {
    const [rows, dim] = new Uint32Array(bytes, 0, 2);
    return Array.from({ length: rows }, (_, row) => new Float32Array(bytes, 8 + row * dim * 4, dim));
}
