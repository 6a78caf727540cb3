/// The server's side of HTTP/2, frame by frame (RFC 9113), on a connection that has agreed on it.
final class ScriptedHTTP2 {
  struct Frame {
    var type: UInt8
    var flags: UInt8
    var stream: UInt32
  }

  private let peer: Peer
  private var buffer: [UInt8] = []

  /// Takes the client's preface and sends our settings.
  init(_ peer: Peer) {
    self.peer = peer
    _ = take("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8.count)
    send(type: 4)
  }

  func send(type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8] = []) {
    peer.send(Self.frame(type: type, flags: flags, stream: stream, payload))
  }

  static func frame(type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8] = []) -> [UInt8] {
    let count = UInt32(payload.count)
    return [UInt8(count >> 16 & 0xFF), UInt8(count >> 8 & 0xFF), UInt8(count & 0xFF), type, flags] + bytes(stream)
      + payload
  }

  /// A number of 32 bits, as frames hold it.
  static func bytes(_ number: UInt32) -> [UInt8] { [24, 16, 8, 0].map { UInt8(number >> $0 & 0xFF) } }

  /// The header block of a status that HPACK has no entry for.
  static func status(_ text: String) -> [UInt8] { [0x08, UInt8(text.utf8.count)] + Array(text.utf8) }

  /// Reads until a request is complete; answers settings on the way.
  /// - Returns: its stream, or nil at the end of the connection.
  func readRequest() -> UInt32? {
    while let frame = readFrame() {
      if frame.type == 4, frame.flags & 1 == 0 { send(type: 4, flags: 1) }
      // HEADERS or DATA with END_STREAM.
      if frame.type <= 1, frame.flags & 1 != 0 { return frame.stream }
    }
    return nil
  }

  func readFrame() -> Frame? {
    guard let head = take(9) else { return nil }
    let count = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
    guard take(count) != nil else { return nil }
    let stream = head[5...8].reduce(0) { $0 << 8 | UInt32($1) } & 0x7FFF_FFFF
    return Frame(type: head[3], flags: head[4], stream: stream)
  }

  private func take(_ count: Int) -> [UInt8]? {
    while buffer.count < count {
      guard let more = peer.readSome() else { return nil }
      buffer += more
    }
    defer { buffer.removeFirst(count) }
    return Array(buffer.prefix(count))
  }
}
