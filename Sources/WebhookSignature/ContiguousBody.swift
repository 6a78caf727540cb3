/// Calls `use` with the bytes of `body`, copied only if they do not lie in one piece.
func withBytes<Result>(of body: some Collection<UInt8>, _ use: (UnsafeRawBufferPointer) -> Result) -> Result {
  body.withContiguousStorageIfAvailable { use(UnsafeRawBufferPointer($0)) } ?? [UInt8](body).withUnsafeBytes(use)
}
