import Glibc
import Testing

@testable import HTTPDelivery

/// What a server does to one request, and what must become of it.
struct HostileAnswer: Sendable, CustomTestStringConvertible {
  enum Expected: Sendable {
    case status(Int)
    case failure(Set<HTTPFailure.Kind>)
    /// Anything but a 2xx, and before the deadline.
    case notDelivered
  }

  let name: String
  let expected: Expected
  var timeout = Duration.seconds(20)
  var body: [UInt8] = Array("{}".utf8)
  /// False: acts as soon as somebody connects.
  var readsRequest = true
  /// False: the connection stays open for the next request.
  var closes = true
  let act: @Sendable (Peer) -> Void

  var testDescription: String { name }

  /// Sends this text, whole, and closes the connection.
  static func closing(_ text: String, _ expected: Expected) -> HostileAnswer {
    HostileAnswer(name: shown(text), expected: expected) { $0.send(text) }
  }

  /// Sends this text, whole, and waits for the next request.
  static func keeping(_ text: String, _ expected: Expected) -> HostileAnswer {
    HostileAnswer(name: shown(text), expected: expected, closes: false) { $0.send(text) }
  }

  /// Sends this text, then says no more.
  static func stalling(_ text: String) -> HostileAnswer {
    HostileAnswer(name: "stall after " + shown(text), expected: .failure([.timeout]), timeout: .milliseconds(400)) {
      peer in
      peer.send(text)
      peer.hang()
    }
  }

  /// Sends this text, then a piece over and over, a byte at a time.
  static func dribbling(_ text: String, then piece: String) -> HostileAnswer {
    HostileAnswer(
      name: "dribble after " + shown(text) + ": " + shown(piece),
      expected: .failure([.timeout]),
      timeout: .milliseconds(400)
    ) { peer in
      peer.send(text)
      while piece.utf8.allSatisfy({ peer.sendSlowly($0) }) {}
    }
  }

  /// Sends this text, then a piece over and over, as fast as it is taken.
  static func flooding(_ text: String, then piece: String, _ expected: Expected) -> HostileAnswer {
    HostileAnswer(name: "flood after " + shown(text) + ": " + shown(piece), expected: expected) { peer in
      peer.send(text)
      let pieces = Array(String(repeating: piece, count: max(1, 65_536 / piece.utf8.count)).utf8)
      while peer.send(pieces) {}
    }
  }

  private static func shown(_ text: String) -> String {
    text.utf8.count > 90 ? text.prefix(60).debugDescription + "… \(text.utf8.count) bytes" : text.debugDescription
  }
}

extension HostileAnswer.Expected {
  func isMet(by outcome: HTTPOutcome) -> Bool {
    switch (self, outcome) {
    case (.status(let expected), .response(let status)): expected == status
    case (.failure(let kinds), .failure(let failure)): kinds.contains(failure.kind)
    case (.notDelivered, .response(let status)): !(200..<300).contains(status)
    case (.notDelivered, .failure(let failure)): failure.kind != .timeout
    default: false
    }
  }
}

extension Peer {
  /// Sends one byte every few milliseconds: slowness is what is being tested.
  fileprivate func sendSlowly(_ byte: UInt8) -> Bool {
    usleep(5000)
    return send([byte])
  }
}
