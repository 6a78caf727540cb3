import Synchronization
import Testing

@testable import HTTPDelivery

/// The same rule for HTTP/2: every exchange ends, none counts that was not answered, and the next one is well.
@Suite struct HostileHTTP2Tests {
  struct Answer: Sendable, CustomTestStringConvertible {
    let testDescription: String
    /// What may become of the request, besides a failure: it may be sent once more where it was provably not processed.
    var statuses: Set<Int> = []
    var closes = false
    let act: @Sendable (Peer, ScriptedHTTP2, _ stream: UInt32) -> Void
  }

  private static let ok: [UInt8] = [0x88]
  /// RFC 9113, section 7.
  private static let (noError, internalError, cancel, refused): (UInt32, UInt32, UInt32, UInt32) = (0, 2, 8, 7)

  static let answers: [Answer] = [
    Answer(testDescription: "close", closes: true) { _, _, _ in },
    Answer(testDescription: "reset", closes: true) { peer, _, _ in peer.reset() },
    Answer(testDescription: "GOAWAY, request not processed", statuses: [207]) { _, http, _ in
      http.send(type: 7, ScriptedHTTP2.bytes(0) + ScriptedHTTP2.bytes(noError))
    },
    Answer(testDescription: "GOAWAY, request perhaps processed") { _, http, stream in
      http.send(type: 7, ScriptedHTTP2.bytes(stream) + ScriptedHTTP2.bytes(internalError))
    },
    Answer(testDescription: "RST_STREAM INTERNAL_ERROR") { _, http, stream in
      http.send(type: 3, stream: stream, ScriptedHTTP2.bytes(internalError))
    },
    Answer(testDescription: "RST_STREAM CANCEL") { _, http, stream in
      http.send(type: 3, stream: stream, ScriptedHTTP2.bytes(cancel))
    },
    Answer(testDescription: "RST_STREAM REFUSED_STREAM", statuses: [207]) { _, http, stream in
      http.send(type: 3, stream: stream, ScriptedHTTP2.bytes(refused))
    },
    Answer(testDescription: "200 cut off by RST_STREAM") { _, http, stream in
      http.send(type: 1, flags: 4, stream: stream, ok)
      http.send(type: 3, stream: stream, ScriptedHTTP2.bytes(internalError))
    },
    Answer(testDescription: "200 cut off by the end of the connection", closes: true) { _, http, stream in
      http.send(type: 1, flags: 4, stream: stream, ok)
    },
    Answer(testDescription: "200 with less than its length") { _, http, stream in
      // content-length: 5
      http.send(type: 1, flags: 4, stream: stream, ok + [0x0F, 0x0D, 0x01, 0x35])
      http.send(type: 0, flags: 1, stream: stream, Array("hell".utf8))
    },
    Answer(testDescription: "200 for a request that was never made") { _, http, stream in
      http.send(type: 1, flags: 5, stream: stream + 2, ok)
    },
    Answer(testDescription: "200 promised by push") { _, http, stream in
      http.send(type: 5, flags: 4, stream: stream, ScriptedHTTP2.bytes(2) + ok)
      http.send(type: 1, flags: 5, stream: 2, ok)
    },
    Answer(testDescription: "header without a status") { _, http, stream in
      http.send(type: 1, flags: 5, stream: stream, [0x0F, 0x0D, 0x01, 0x30])
    },
    Answer(testDescription: "status 20") { _, http, stream in
      http.send(type: 1, flags: 5, stream: stream, ScriptedHTTP2.status("20"))
    },
    Answer(testDescription: "header that does not unpack") { _, http, stream in
      http.send(type: 1, flags: 5, stream: stream, [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
    },
    Answer(testDescription: "HTTP/1.1") { peer, _, _ in
      peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    },
    Answer(testDescription: "frame of 16 MB") { peer, _, _ in
      peer.send([0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 1])
    },
    Answer(testDescription: "endless CONTINUATION") { peer, http, stream in
      http.send(type: 1, flags: 0, stream: stream, ok)
      let more = ScriptedHTTP2.frame(type: 9, stream: stream, Array(repeating: 0x88, count: 4096))
      while peer.send(more) {}
    },
  ]

  @Test(arguments: answers)
  func hostileAnswerHarmsNobody(answer: Answer) async throws {
    let tls = try await ScriptedTLS.shared(speaksHTTP2: true)
    let hasActed = Atomic<Bool>(false)
    let server = ScriptedServer(tls: tls) { peer in
      guard peer.peek().starts(with: Array("PRI ".utf8)) else {
        while peer.readRequest() != nil { peer.send("HTTP/1.1 207 Polite\r\nContent-Length: 0\r\n\r\n") }
        return
      }
      let http = ScriptedHTTP2(peer)
      while let stream = http.readRequest() {
        guard hasActed.exchange(true, ordering: .sequentiallyConsistent) else {
          answer.act(peer, http, stream)
          if answer.closes { return }
          continue
        }
        http.send(type: 1, flags: 5, stream: stream, ScriptedHTTP2.status("207"))
      }
    }
    var configuration = HTTPEngineConfiguration.loopback
    configuration.caFile = tls.authorityFile
    let url = "https://localhost:\(server.port)/"
    try await withClient(configuration) { client in
      // Some of what libcurl takes for no answer at all is waited out.
      switch await client.post(url, timeout: .seconds(3)).outcome {
      case .response(let status): #expect(answer.statuses.contains(status))
      case .failure(let failure): #expect(failure.kind != .aborted, "\(failure)")
      }
      for _ in 0..<2 { #expect(await client.post(url).outcome == .response(status: 207)) }
    }
    let didAct = hasActed.load(ordering: .sequentiallyConsistent)
    #expect(didAct)
  }
}
