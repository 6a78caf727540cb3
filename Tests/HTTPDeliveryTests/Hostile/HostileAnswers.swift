/// Answers that try to be taken for a delivery, to hold the engine up, to fill its memory, or to be taken for the answer to
/// another request.
enum HostileAnswers {
  private static let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
  private static let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
  private static func length(_ value: String, _ body: String = "") -> String {
    "HTTP/1.1 200 OK\r\nContent-Length: \(value)\r\n\r\n\(body)"
  }

  static let all = [slow, endless, lengths, junk, statusLines, interim, chunks, headers, encodings, early].flatMap {
    $0
  }

  /// Everything ends at its deadline, whatever it is that does not come.
  private static let slow: [HostileAnswer] = [
    .stalling(""), .stalling("H"), .stalling("HTTP/1.1 200 OK\r\n"), .stalling("HTTP/1.1 200 OK\r\nX: y"),
    .stalling("HTTP/1.1 100 Continue\r\n\r\n"), .stalling(length("5", "hell")), .stalling(chunked),
    .stalling(chunked + "5"), .stalling(chunked + "5\r\nhello\r\n"), .stalling(chunked + "0\r\n"),
    .stalling(chunked + "0\r\nX: y\r\n"), .stalling("HTTP/1.1 200 OK\r\n\r\nhello"),
    .dribbling("", then: "HTTP/1.1 200 OK"), .dribbling("HTTP/1.1 200 OK\r\nX: ", then: "a"),
    .dribbling("HTTP/1.1 200 OK\r\n", then: "X: y\r\n"), .dribbling("", then: "HTTP/1.1 100 Continue\r\n\r\n"),
    .dribbling(length("1000000"), then: "a"), .dribbling(chunked, then: "1\r\na\r\n"),
    .dribbling(chunked + "1;", then: "x"), .dribbling(chunked + "0\r\n", then: "X: y\r\n"),
    .dribbling("HTTP/1.1 200 OK\r\n\r\n", then: "a"),
  ]

  /// A body is cut off at its limit, and the status counts; a header is too large.
  private static let endless: [HostileAnswer] = [
    .flooding("HTTP/1.1 200 OK\r\n\r\n", then: "a", .status(200)),
    .flooding("HTTP/1.1 500 No\r\n\r\n", then: "a", .status(500)),
    .flooding(length("99999999999"), then: "a", .status(200)),
    .flooding(chunked, then: "1\r\na\r\n", .status(200)),
    .flooding(chunked + "fffffff\r\n", then: "a", .status(200)),
    .flooding("HTTP/1.1 200 OK\r\n", then: "X: y\r\n", .failure([.responseTooLarge])),
    .flooding("HTTP/1.1 200 OK\r\nX: ", then: "a", .failure([.responseTooLarge])),
    .flooding("HTTP/1.1 200 OK\r\nX: ", then: "a\r\n ", .failure([.responseTooLarge])),
    .flooding("HTTP/1.1 200 ", then: "a", .failure([.responseTooLarge])),
    .flooding("HTTP/1.1 200 OK\r\n", then: "a", .failure([.responseTooLarge])),
    .flooding("", then: "HTTP/1.1 100 Continue\r\n\r\n", .failure([.responseTooLarge])),
    .flooding("", then: "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", .failure([.responseTooLarge])),
    .flooding("HTTP/1.1 100 Continue\r\n", then: "X: y\r\n", .failure([.responseTooLarge])),
    .flooding(chunked + "0\r\n", then: "X: y\r\n", .failure([.responseTooLarge])),
    .flooding(chunked + "0\r\nX: ", then: "a", .failure([.responseTooLarge])),
    .flooding(chunked + "1;", then: "x", .status(200)),
    .flooding(chunked, then: "1;" + String(repeating: "x", count: 10_000) + "\r\na\r\n", .status(200)),
    .flooding(chunked, then: "0", .failure([.malformedResponse])),
    .flooding("", then: "a", .failure([.malformedResponse, .responseTooLarge])),
    .flooding("", then: "\r\n", .failure([.malformedResponse, .responseTooLarge])),
    .flooding("", then: "\0", .failure([.malformedResponse, .responseTooLarge])),
    .closing(
      "HTTP/1.1 200 OK\r\nX: " + String(repeating: "a", count: 16 << 20) + "\r\n\r\n",
      .failure([.responseTooLarge])
    ),
    .closing(
      "HTTP/1.1 200 OK\r\n" + String(repeating: "X: \(String(repeating: "a", count: 1000))\r\n", count: 16 << 10)
        + "\r\n",
      .failure([.responseTooLarge])
    ),
  ]

  private static let lengths: [HostileAnswer] = [
    .closing(length("6", "hello"), .failure([.reset])), .closing(length("1"), .failure([.reset])),
    .closing(length("4", "hello"), .status(200)), .keeping(length("4", "hello"), .status(200)),
    .keeping(length("0", "hello"), .status(200)), .closing(length("-1", "hello"), .notDelivered),
    .closing(length("-5", "hello"), .notDelivered), .closing(length("0x5", "hello"), .notDelivered),
    .closing(length("5x", "hello"), .notDelivered), .closing(length("five", "hello"), .notDelivered),
    .closing(length("", "hello"), .notDelivered), .closing(length("5,6", "hello"), .notDelivered),
    .closing(length("5 6", "hello"), .notDelivered), .closing(length("1e1", "hello"), .notDelivered),
    .closing(length("18446744073709551621", "hello"), .notDelivered),
    .closing(length("9223372036854775807", "hello"), .notDelivered),
    .closing(length("5\r\nContent-Length: 6", "hello"), .notDelivered),
    .closing(length("6\r\nContent-Length: 5", "hello"), .notDelivered),
    .keeping(length("5\r\nContent-Length: 5", "hello"), .status(200)),
  ]

  /// Bytes that belong to no request; what comes next on the connection is the answer to the next one, or there is no such
  /// connection.
  private static let junk: [HostileAnswer] = [
    .keeping(ok + ok, .status(200)), .keeping(ok + "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", .status(200)),
    .keeping(ok + "junk", .status(200)), .keeping(ok + "\r\n", .status(200)), .keeping(ok + "\0", .status(200)),
    .keeping(ok + "HTTP/1.1 200 OK\r\nContent-Le", .status(200)), .keeping(ok + "H", .status(200)),
    .keeping(length("5", "hello") + ok, .status(200)), .keeping(chunked + "5\r\nhello\r\n0\r\n\r\n" + ok, .status(200)),
    .keeping("HTTP/1.1 204 No Content\r\n\r\n" + ok, .status(204)),
    .keeping("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", .status(204)),
    .keeping("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", .status(204)),
    .keeping("HTTP/1.1 204 No Content\r\nContent-Length: \(ok.utf8.count)\r\n\r\n\(ok)", .status(204)),
    .keeping("HTTP/1.1 304 Not Modified\r\nContent-Length: \(ok.utf8.count)\r\n\r\n\(ok)", .status(304)),
    .keeping("HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n\(ok)", .status(205)),
    .keeping("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n" + ok, .status(200)),
    .keeping(length("0\r\nConnection: close") + ok, .status(200)),
    .keeping(ok + String(repeating: ok, count: 200), .status(200)),
  ]

  private static let statusLines: [HostileAnswer] = [
    "HTTP/1.1 200OK", "HTTP/1.1200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 0200 OK",
    "HTTP/1.1 +200 OK", "HTTP/1.1 -200 OK", "HTTP/1.1 2 0 0", "HTTP/1.1 0x200 OK", "HTTP/1.1 2e2 OK", "HTTP/1.1 OK 200",
    "HTTP/1.1 ２００ OK", "HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 OK", "HTTP/2 200 OK", "HTTP/3 200 OK", "HTTP/2.0 200 OK",
    "HTTP/1.2 200 OK", "HTTP/1.9 200 OK", "HTTP/0.9 200 OK", "HTTP/9.9 200 OK", "HTTP/11 200 OK", "HTTP/1 200 OK",
    "HTTP/1.10 200 OK", "HTTP/-1.1 200 OK", "HTTP/1.1\0200 OK", "HTTPS/1.1 200 OK", "HTTP 200 OK", "200 OK",
    "ICY 200 OK",
    "RTSP/1.0 200 OK", "SIP/2.0 200 OK", "POST / HTTP/1.1", "\u{16}\u{3}\u{1}\u{2}\0", "{\"status\":200}", "<html>",
    "HTTP/1.1 000 OK", "HTTP/1.1 099 OK", "HTTP/1.1 99 OK", "HTTP/1.1 300 OK", "HTTP/1.1 600 OK", "HTTP/1.1 999 OK",
  ].map { .closing($0 + "\r\nContent-Length: 0\r\n\r\n", .notDelivered) }

  private static let interim: [HostileAnswer] = [
    .closing("HTTP/1.1 100 Continue\r\n\r\n", .notDelivered), .closing("HTTP/1.1 199 Almost\r\n\r\n", .notDelivered),
    .closing("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello", .notDelivered),
    .closing("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + ok, .notDelivered),
    .closing("HTTP/1.1 101 Switching Protocols\r\n\r\n", .notDelivered),
    .keeping("HTTP/1.1 100 Continue\r\n\r\n" + ok, .status(200)),
    .keeping(String(repeating: "HTTP/1.1 102 Processing\r\n\r\n", count: 100) + ok, .status(200)),
    .keeping(
      String(repeating: "HTTP/1.1 103 Hints\r\n\r\n", count: 100) + "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
      .status(500)
    ),
  ]

  private static let chunks: [HostileAnswer] =
    [
      "zz\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "g\r\n", "0x5\r\nhello\r\n0\r\n\r\n",
      "\r\nhello\r\n0\r\n\r\n",
      "fffffffffffffffff\r\nhello", "10000000000000005\r\nhello\r\n0\r\n\r\n", "8000000000000000\r\nhello",
      "ffffffffffffffff\r\nhello", "5\r\nhelloX\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhell", "5\r\nhello",
      "5\r\nhello\r\n",
      "5\r\nhello\r\n0", "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\nX: y\r\n", "+5\r\nhello\r\n0\r\n\r\n",
      "5\0\r\nhello", "5 5\r\nhello",
      "hello", ok,
    ].map { .closing(chunked + $0, .notDelivered) } + [
      .closing(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n",
        .notDelivered
      ),
      .closing("HTTP/1.1 200 OK\r\nTransfer-Encoding: sideways\r\n\r\nhello", .notDelivered),
      .keeping(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        .status(200)
      ),
    ]

  private static let headers: [HostileAnswer] = [
    .keeping("HTTP/1.1 500 No\r\nRetry-After: \0\r\nContent-Length: 0\r\n\r\n", .notDelivered),
    .keeping(
      "HTTP/1.1 500 No\r\nRetry-After: 9\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n",
      .status(500)
    ),
    .closing("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", .notDelivered),
    .keeping("HTTP/1.1 500 No\r\n: nameless\r\nno colon\r\nContent-Length: 0\r\n\r\n", .notDelivered),
    .keeping("HTTP/1.1 500 No\r\n\u{1B}]0;x\u{7}: y\r\nContent-Length: 0\r\n\r\n", .notDelivered),
  ]

  /// Nobody asked for any, and nothing is unpacked. The bytes are those of no format at all.
  private static let encodings: [HostileAnswer] = [
    "gzip", "deflate", "br", "zstd", "compress", "x-gzip", "gzip, gzip", "🙂",
  ]
  .map {
    .keeping("HTTP/1.1 200 OK\r\nContent-Encoding: \($0)\r\nContent-Length: 5\r\n\r\n\u{1F}\u{0B}abc", .status(200))
  }

  /// Answers and ends that come before the request has been taken.
  private static let early: [HostileAnswer] = [
    HostileAnswer(name: "close at once", expected: .failure([.reset, .tls]), readsRequest: false) { _ in },
    HostileAnswer(name: "reset at once", expected: .failure([.reset, .connect, .tls]), readsRequest: false) {
      $0.reset()
    },
    HostileAnswer(name: "reset after the request", expected: .failure([.reset])) { $0.reset() },
    HostileAnswer(
      name: "never read a large request",
      expected: .failure([.timeout]),
      timeout: .milliseconds(400),
      body: large,
      readsRequest: false
    ) { $0.ignore() },
    HostileAnswer(
      name: "accept a large request without reading it",
      expected: .failure([.timeout]),
      timeout: .milliseconds(400),
      body: large,
      readsRequest: false
    ) { peer in
      peer.send(ok)
      peer.ignore()
    },
    HostileAnswer(
      name: "refuse a large request without reading it",
      expected: .notDelivered,
      body: large,
      readsRequest: false
    ) { $0.send("HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") },
  ]

  private static let large = [UInt8](repeating: 0x61, count: 8 << 20)
}
