import Foundation
import Rig
import Synchronization
import TestSupport
import Testing
import WebhookSignature

@testable import Chaos

/// What the receiver of all runs takes, and what it does not.
@Suite struct RawReceiverTests {
  private final class Box: Recipient {
    let seen = Mutex<(arrivals: [Pair], refused: Int)>(([], 0))
    func receive(_ arrival: RawReceiver.Arrival, failing: Double?) -> RawReceiver.Verdict {
      seen.withLock { $0.arrivals.append(arrival.pair) }
      return .init(isAccepted: failing == nil)
    }
    func refuse() { seen.withLock { $0.refused += 1 } }
  }

  private let box = Box()
  private let receiver: RawReceiver

  init() throws {
    var random = SeededGenerator(seed: 1, stream: 1)
    receiver = try RawReceiver(paths: ["/a", "/b"], recipient: box, random: &random)
  }

  @Test func whatIsSignedIsTakenWhateverPiecesItComesIn() throws {
    defer { receiver.stop() }
    let client = try Client(receiver.port)
    let first = try request("/a", 17)
    client.send(first[..<40])
    client.send(first[40...])
    #expect(client.status() == 200)
    client.send(try request("/b", 18) + request("/a", 19))
    #expect(client.status() == 200 && client.status() == 200)
    let expected = [(17, 0), (18, 1), (19, 0)].map { Pair(event: $0, endpoint: $1) }
    #expect(box.seen.withLock { $0.arrivals } == expected)
    receiver.become(.failing(share: 1))
    client.send(try request("/a", 20))
    #expect(client.status() == 500)
  }

  @Test func whatIsNotSignedIsRefused() throws {
    defer { receiver.stop() }
    let client = try Client(receiver.port)
    var forged = try request("/a", 17)
    forged[forged.count - 3] = UInt8(ascii: "8")
    client.send(forged[...])
    #expect(client.status() == 401)
    client.send(try request("/elsewhere", 17))
    #expect(client.status() == 401)
    #expect(box.seen.withLock { $0.arrivals.isEmpty && $0.refused == 2 })
  }

  @Test func aCutTellsWhoseAnswersItMayHaveSwallowed() async throws {
    defer { receiver.stop() }
    let client = try Client(receiver.port)
    for number in [1, 2] {
      client.send(try request("/a", number))
      #expect(client.status() == 200)
    }
    #expect(try await receiver.cut(reset: true) == [Pair(event: 2, endpoint: 0)])
    #expect(client.status() == nil)
    #expect(try await receiver.cut(reset: true) == [])
  }

  /// It was sent while the receiver was silent, and its sender may have given up since: read now, it would be answered in
  /// vain.
  @Test func aCutEndsWhatWasNotAcceptedYet() async throws {
    defer { receiver.stop() }
    receiver.become(.silent)
    let waiting = try Client(receiver.port)
    waiting.send(try request("/a", 1))
    #expect(try await receiver.cut(reset: true) == [])
    receiver.become(.fair)
    let next = try Client(receiver.port)
    next.send(try request("/a", 2))
    #expect(next.status() == 200)
    #expect(waiting.status() == nil)
    #expect(box.seen.withLock { $0.arrivals } == [Pair(event: 2, endpoint: 0)])
  }

  private func request(_ path: String, _ number: Int) throws -> [UInt8] {
    let body = Array(#"{"type":"t","data":{"n": \#(number)}}"#.utf8)
    let id = "01A20DA1-DDD2-726A-BC73-4379D14D5C85"
    let timestamp = Int(Date().timeIntervalSince1970)
    let signer = WebhookSigner(keys: [try SigningKey(parsing: receiver.secret)])
    let head = """
      POST \(path) HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: \(body.count)\r\nwebhook-id: \(id)\r\n\
      Webhook-Timestamp: \(timestamp)\r\n\
      webhook-signature: \(signer.signature(id: id, timestamp: timestamp, body: body))\r\n\r\n
      """
    return Array(head.utf8) + body
  }

  private final class Client {
    private let descriptor: Int32

    init(_ port: UInt16) throws {
      descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      let descriptor = descriptor
      try #require(withLoopback(port) { connect(descriptor, $0, $1) } == 0)
    }

    deinit { close(descriptor) }

    func send(_ bytes: some Collection<UInt8>) {
      let bytes = Array(bytes)
      _ = Foundation.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// Of the next answer, a whole one at a time; nil at the end of the connection.
    func status() -> Int? {
      var text = ""
      var byte: UInt8 = 0
      while !text.hasSuffix("\r\n\r\n") {
        guard recv(descriptor, &byte, 1, 0) == 1 else { return nil }
        text.unicodeScalars.append(UnicodeScalar(byte))
      }
      return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }
    }
  }
}
