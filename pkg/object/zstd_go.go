//go:build !libzstd

package object

import "github.com/klauspost/compress/zstd"

// Coder names the zstd implementation that this build uses.
const Coder = "zstd (Go)"

type encoder struct{ z *zstd.Encoder }

func newEncoder() (encoder, error) {
	// A window below the block size keeps the match table's reach in the cache: faster, and hardly larger.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(true), zstd.WithZeroFrames(true))
	return encoder{z}, err
}

func (e encoder) encode(dst, content []byte) ([]byte, error) { return e.z.EncodeAll(content, dst), nil }

type decoder struct{ z *zstd.Decoder }

func newDecoder(limit int) (decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(limit, 64<<10))),
		zstd.WithDecoderMaxWindow(128<<20))
	return decoder{z}, err
}

func (d decoder) decode(dst, frame []byte) ([]byte, error) { return d.z.DecodeAll(frame, dst) }
