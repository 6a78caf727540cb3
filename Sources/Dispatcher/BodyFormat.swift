import Foundation
import HTTPDelivery
import OutboxStore
import Postgres

/// The shape of a request: of its body, and of the headers that belong to it. The payload is put in as it came from the
/// log, byte for byte.
package enum BodyFormat: String, Sendable {
  /// Standard Webhooks: `{"type","timestamp","data"}`.
  case standard
  /// CloudEvents 1.0, structured: the event in one JSON object.
  case cloudevents
  /// CloudEvents 1.0, binary: the payload is the body, everything else is in `ce-…` headers.
  case cloudeventsBinary = "cloudevents-binary"
  /// The payload alone.
  case raw
  /// What the first webhook tutorials send: `{"event","data"}`.
  case classic

  var contentType: String { self == .cloudevents ? "application/cloudevents+json" : "application/json" }

  /// The same event gives the same bytes, whatever the attempt. Types need no escaping in JSON: the log admits letters,
  /// digits and a few marks only.
  package func body(for event: OutboxEvent) -> RequestBody {
    switch self {
    case .raw, .cloudeventsBinary:
      return RequestBody(event.payload)
    case .classic:
      return Self.join(#"{"event":""# + event.type + #"","data":"#, event.payload)
    case .standard:
      return Self.join(
        #"{"type":""# + event.type + #"","timestamp":""# + event.createdAt.rfc3339 + #"","data":"#,
        event.payload
      )
    case .cloudevents:
      let source = event.source.map(Self.quoted) ?? #""\#(Self.source)""#
      let subject = event.key.map { #""subject":"# + Self.quoted($0) + "," } ?? ""
      return Self.join(
        #"{"specversion":"1.0","id":""# + event.id.lowercased + #"","source":"# + source + #","type":""#
          + event.type
          + #"","# + subject + #""time":""# + event.createdAt.rfc3339
          + #"","datacontenttype":"application/json","data":"#,
        event.payload
      )
    }
  }

  /// Adds the header lines that belong to this format.
  package func addHeaderLines(for event: OutboxEvent, to lines: inout [String]) {
    guard self == .cloudeventsBinary else { return }
    lines.append("ce-specversion: 1.0")
    lines.append("ce-id: \(event.id.lowercased)")
    lines.append("ce-source: \((event.source ?? Self.source).percentEncodedForHeader)")
    lines.append("ce-type: \(event.type)")
    lines.append("ce-time: \(event.createdAt.rfc3339)")
    if let key = event.key { lines.append("ce-subject: \(key.percentEncodedForHeader)") }
  }

  /// `source` of events whose metadata name none: it must not be empty (CloudEvents 1.0, section 3.1).
  private static let source = "urn:martlet:outbox"

  private static func join(_ head: String, _ payload: [UInt8]) -> RequestBody {
    var head = head
    return head.withUTF8 { head in
      RequestBody(capacity: head.count + payload.count + 1) { target in
        target.copyBytes(from: head)
        UnsafeMutableRawBufferPointer(rebasing: target[head.count...]).copyBytes(from: payload)
        target[head.count + payload.count] = UInt8(ascii: "}")
        return head.count + payload.count + 1
      }
    }
  }

  private static func quoted(_ text: String) -> String {
    // A string always has a JSON form.
    let encoder = JSONEncoder()
    encoder.outputFormatting = .withoutEscapingSlashes
    return String(decoding: (try? encoder.encode(text)) ?? Data(#""""#.utf8), as: UTF8.self)
  }
}

extension String {
  /// CloudEvents 1.0, HTTP binding, section 3.1.3.2: everything but printable ASCII is percent-encoded, and so are the
  /// space, the double quote and the percent sign.
  var percentEncodedForHeader: String {
    var text = ""
    for byte in utf8 {
      if (0x21...0x7E).contains(byte), byte != 0x22, byte != 0x25 {
        text.unicodeScalars.append(Unicode.Scalar(byte))
      } else {
        text += (byte < 16 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
      }
    }
    return text
  }
}

extension UUID {
  /// As PostgreSQL writes it: `01a20c1d-c2f8-7a31-8e38-54d42b9a0a2e`.
  package var lowercased: String {
    let digits: StaticString = "0123456789abcdef"
    return withUnsafeBytes(of: uuid) { bytes in
      String(unsafeUninitializedCapacity: 36) { text in
        var at = 0
        for (index, byte) in bytes.enumerated() {
          if index == 4 || index == 6 || index == 8 || index == 10 {
            text[at] = UInt8(ascii: "-")
            at += 1
          }
          text[at] = digits.utf8Start[Int(byte >> 4)]
          text[at + 1] = digits.utf8Start[Int(byte & 15)]
          at += 2
        }
        return 36
      }
    }
  }
}

extension Timestamp {
  /// RFC 3339 in UTC with microseconds: `2026-11-24T05:53:26.776655Z`. Of the infinite ones, some time hundreds of thousands
  /// of years away: whoever may insert a `created_at` may insert those.
  package var rfc3339: String {
    // A day from the border, because whole days are taken away and put back.
    let microseconds = max(microsecondsSince1970, .min + 86_400_000_000)
    let days = microseconds.dividedFloor(by: 86_400_000_000)
    var rest = microseconds - days * 86_400_000_000
    // Days to a date of the proleptic Gregorian calendar, by Howard Hinnant's `civil_from_days`
    // (https://howardhinnant.github.io/date_algorithms.html): Foundation's formatters take a hundred times as long.
    let z = days + 719_468
    let era = z.dividedFloor(by: 146_097)
    let doe = z - era * 146_097
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100)
    let mp = (5 * doy + 2) / 153
    let month = mp < 10 ? mp + 3 : mp - 9
    let year = yoe + era * 400 + (month <= 2 ? 1 : 0)
    var text = ""
    text.reserveCapacity(27)
    func put(_ value: Int64, _ width: Int) {
      let digits = String(value)
      for _ in 0..<max(0, width - digits.utf8.count) { text.append("0") }
      text.append(digits)
    }
    put(year, 4)
    text.append("-")
    put(month, 2)
    text.append("-")
    put(doy - (153 * mp + 2) / 5 + 1, 2)
    text.append("T")
    for (unit, mark) in [(Int64(3_600_000_000), ":"), (60_000_000, ":"), (1_000_000, ".")] {
      put(rest / unit, 2)
      text.append(mark)
      rest %= unit
    }
    put(rest, 6)
    text.append("Z")
    return text
  }
}

extension Int64 {
  fileprivate func dividedFloor(by divisor: Int64) -> Int64 {
    self / divisor - (self % divisor < 0 ? 1 : 0)
  }
}
