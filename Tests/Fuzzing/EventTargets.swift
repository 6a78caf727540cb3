import Dispatcher
import Foundation
import HTTPDelivery
import OutboxStore
import Postgres
import Receiver

extension FuzzTarget {
  /// Whatever key and source an application writes: the body is JSON that says so, headers are one line each and say so.
  static let eventBody = FuzzTarget(name: "event-body") { random in
    var event = OutboxEvent(
      id: randomID(&random),
      type: random.pick(["t", "order.created", "a/b:c-d_e"]),
      key: random.oneIn(4) ? nil : random.text(1...20),
      createdAt: Timestamp(microsecondsSince2000: Int64(random.below(1 << 52))),
      payload: Array(random.pick([#"{"n":1}"#, "[]", "null", #""é\u0000""#, "1e9"]).utf8)
    )
    event.source = random.oneIn(2) ? nil : random.text(1...20)
    let format = random.pick([BodyFormat.standard, .cloudevents, .cloudeventsBinary, .raw, .classic])
    let rendered = format.body(for: event)
    let body = withExtendedLifetime(rendered) { Data(rendered.bytes) }
    let json = try? JSONSerialization.jsonObject(with: body, options: .fragmentsAllowed)
    try require(json != nil, "the body is no JSON", String(decoding: body, as: UTF8.self))
    if format == .cloudevents, let object = json as? [String: Any] {
      try require(object["id"] as? String == event.id.uuidString.lowercased(), "another id", object)
      try require(object["source"] as? String == event.source ?? "urn:martlet:outbox", "another source", object)
      try require(object["subject"] as? String == event.key, "another subject", object)
      try require(
        object["type"] as? String == event.type && object["specversion"] as? String == "1.0",
        "another type",
        object
      )
    }
    if format == .cloudeventsBinary {
      var lines: [String] = []
      format.addHeaderLines(for: event, to: &lines)
      try require(
        lines.allSatisfy { $0.utf8.allSatisfy { (0x20...0x7E).contains($0) } },
        "a header that is not printable ASCII",
        lines
      )
      let subject = lines.first { $0.hasPrefix("ce-subject: ") }?.dropFirst(12).removingPercentEncoding
      try require(subject == event.key, "another subject", lines)
    }
    if format == .standard || format == .classic {
      try require(
        EventType.of(ceType: nil, body: [UInt8](body)) == event.type,
        "another type is read",
        String(decoding: body, as: UTF8.self)
      )
    }
    return true
  }

  /// Ids and times as others write them.
  static let timeAndID = FuzzTarget(name: "time-and-id") { random in
    let id = randomID(&random)
    try require(id.lowercased == id.uuidString.lowercased(), "an id is written otherwise", id)
    let borders: [Int64] = [.min, .max, .min + 1, .max - 1, 0, -1, -946_684_800_000_000, -946_684_800_000_001]
    let time = Timestamp(
      microsecondsSince2000: random.oneIn(8)
        ? random.pick(borders) : Int64(truncatingIfNeeded: random.next()) >> Int64(random.below(40))
    )
    let text = time.rfc3339
    let microseconds = time.microsecondsSince1970
    var seconds = time_t(microseconds / 1_000_000)
    var parts = tm()
    guard microseconds >= 0, (0...253_402_300_799).contains(seconds), gmtime_r(&seconds, &parts) != nil else {
      return false
    }
    let year = Int(parts.tm_year) + 1900
    let reference = String(
      format: "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ",
      year,
      Int(parts.tm_mon) + 1,
      Int(parts.tm_mday),
      Int(parts.tm_hour),
      Int(parts.tm_min),
      Int(parts.tm_sec),
      Int(microseconds % 1_000_000)
    )
    try require(text == reference, "\(text), and the C library says \(reference)", microseconds)
    _ = time.adding(.seconds(Int64(truncatingIfNeeded: random.next())))
    return true
  }

  /// A token can go into a header, and is not used for ever.
  static let token = FuzzTarget(name: "token") { random in
    let json = random.mutated(
      random.pick([
        #"{"access_token":"abc.def","token_type":"Bearer","expires_in":3600}"#,
        #"{"access_token":"x","expires_in":"60"}"#,
        #"{"error":"invalid_client"}"#,
      ]),
      [
        "1e400", "-1", "null", #""access_token""#, "\\u0000", "\\r\\n", "{", "}", "[", ":", "\"", "\\ud800", "nan",
        String(repeating: "[", count: 600),
      ]
    )
    let status = random.pick([200, 200, 201, 400, 401, 500])
    let answer = TokenAnswer(
      HTTPCompletion(tag: 0, outcome: .response(status: status), duration: .zero, excerpt: json, keptBody: json)
    )
    switch answer {
    case .token(let token, let lifetime):
      try require((200..<300).contains(status), "a token from an error", json)
      try require(
        !token.isEmpty && token.utf8.allSatisfy { (0x21...0x7E).contains($0) },
        "a token that fits no header",
        json
      )
      try require(lifetime >= .zero && lifetime <= .seconds(86_400), "it lives for \(lifetime)", json)
      return true
    case .refused(let failure):
      try require(
        failure.message.unicodeScalars.allSatisfy { $0.value >= 0x20 },
        "a control character in the message",
        failure.message
      )
      return false
    }
  }

  /// As the recommendation's grammar has it.
  static let traceContext = FuzzTarget(name: "trace-context") { random in
    let text = random.mutatedText(
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      ["ff", "-", "00", "A", String(repeating: "0", count: 32), "0000000000000000"]
    )
    let parts = text.utf8.split(separator: 0x2D, omittingEmptySubsequences: false).map {
      String(decoding: $0, as: UTF8.self)
    }
    let isHex = { (part: String, count: Int) in
      part.utf8.count == count && part.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
    }
    let reference =
      parts.count == 4 && isHex(parts[0], 2) && isHex(parts[1], 32) && isHex(parts[2], 16) && isHex(parts[3], 2)
      && parts[0] != "ff"
      && parts[1].contains { $0 != "0" } && parts[2].contains { $0 != "0" }
    try require(TraceContext.isTraceparent(text) == reference, "accepted by one of two", text)
    if TraceContext.isTracestate(text) {
      try require(
        text.utf8.allSatisfy { (0x20...0x7E).contains($0) } && text.utf8.count <= 512,
        "not one short line",
        text
      )
    }
    return reference
  }

  /// Any body may arrive at a receiver.
  static let eventType = FuzzTarget(name: "event-type") { random in
    let body = random.mutated(
      random.pick([
        #"{"type":"order.created","data":{}}"#, #"{"event":"x","data":[1]}"#, #" {"type":7,"event":"y"}"#, "[1]", "",
      ]),
      ["{", "}", "\"type\"", "\"", "\\", ":", "\\u0000", "\\ud83d", "null", String(repeating: "{\"a\":", count: 300)]
    )
    guard let type = EventType.of(ceType: nil, body: body) else { return false }
    // Somebody else's parser finds it under one of the two names.
    let object = try? JSONSerialization.jsonObject(with: Data(body)) as? [String: Any]
    guard let object else { return true }
    try require(
      [object["type"] as? String, object["event"] as? String].contains(type),
      "another type than \(type)",
      String(decoding: body, as: UTF8.self)
    )
    return true
  }

  /// No message repeats the password, whatever is wrong with the rest.
  static let connectionString = FuzzTarget(name: "connection-string") { random in
    let secret = "hunter2secret"
    let text = random.mutatedText(
      random.pick([
        "postgres://shop:\(secret)@db.test:5432/shop?sslmode=require",
        "host=db.test user=shop password=\(secret) dbname=shop",
        "postgresql://shop:\(secret)@a:1,b:2/shop?target_session_attrs=read-write",
        "postgres://shop:\(secret)@[::1]/shop",
        "host=/run/postgresql password='\(secret)' connect_timeout=5",
      ]),
      [
        secret, "@", ":", "/", "//", "?", "=", "'", "\\", "%", "%00", "&", ",", " ", "host=", "port=",
        "connect_timeout=", "keepalives=", "service=x",
      ]
    )
    do {
      try ConnectionString.check(text)
      return true
    } catch let error as PostgresError {
      let all = [error.message, error.hint, error.detail, "\(error)"].compactMap { $0 }.joined(separator: " ")
      try require(!all.contains(secret), "repeats the password: \(all)", text)
      return false
    }
  }

  private static func randomID(_ random: inout FuzzRandom) -> UUID {
    let bytes = random.bytes(16...16)
    return bytes.withUnsafeBytes { UUID(uuid: $0.loadUnaligned(as: uuid_t.self)) }
  }
}
