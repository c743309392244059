#!/bin/sh
# Makes tests/import/golden anew with the original crates: needs cargo, its registry, and a C compiler.
# Version 0.4 writes its snapshot in the order of a hash table, so files differ from run to run; what they say does not.
set -eu
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r Cargo.toml src "$scratch"
(cd "$scratch" && cargo build --quiet --release)
rm -rf golden
"$scratch/target/release/golden" golden
