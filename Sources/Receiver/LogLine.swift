import Foundation

/// The line about one delivery that a person reads.
enum LogLine {
  /// `12:00:01.250Z 200 order.created msg_1 512 B verified duplicate`
  static func text(_ delivery: ReceivedDelivery, reply: Reply, isDuplicate: Bool) -> String {
    var words = [
      time(delivery.receivedAtDate),
      "\(reply.status)",
      EventType.of(ceType: delivery.header("ce-type"), body: delivery.body).map { printable($0) } ?? "-",
      delivery.webhookID.map { printable($0) } ?? "-",
      "\(delivery.body.count) B",
    ]
    switch delivery.verification {
    case .verified: words.append("verified")
    case .unchecked: words.append("signed, not checked")
    case .unsigned: words.append("unsigned")
    case .invalid(let reason): words.append("INVALID (\(printable(reason)))")
    }
    if isDuplicate { words.append("duplicate") }
    return words.joined(separator: " ")
  }

  /// The time of day in UTC, to the millisecond.
  private static func time(_ date: Date) -> String {
    let seconds = date.timeIntervalSince1970
    guard seconds.isFinite, abs(seconds) < 1e14 else { return "--:--:--.---Z" }
    let milliseconds = Int((seconds * 1000).rounded(.down))
    let dayLength = 24 * 3600 * 1000
    let ofDay = ((milliseconds % dayLength) + dayLength) % dayLength
    func digits(_ number: Int, _ width: Int) -> String {
      let text = String(number)
      return String(repeating: "0", count: width - text.utf8.count) + text
    }
    return "\(digits(ofDay / 3_600_000, 2)):\(digits(ofDay / 60_000 % 60, 2)):\(digits(ofDay / 1000 % 60, 2))"
      + ".\(digits(ofDay % 1000, 3))Z"
  }

  /// `text` without what could write over the terminal or break the line, and not longer than a line can bear: senders
  /// choose these texts.
  private static func printable(_ text: String) -> String {
    let limit = 100
    var result = ""
    for scalar in text.unicodeScalars.prefix(limit) {
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned:
        result.unicodeScalars.append("\u{FFFD}")
      default:
        result.unicodeScalars.append(scalar)
      }
    }
    return text.unicodeScalars.count > limit ? result + "…" : result
  }
}
