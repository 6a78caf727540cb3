import Foundation

/// An endpoint of the demo, and what is wrong with it.
enum Target: Int, CaseIterable, Sendable {
  case billing, warehouse, analytics, legacy, partner

  var name: String {
    switch self {
    case .billing: "billing"
    case .warehouse: "warehouse"
    case .analytics: "analytics"
    case .legacy: "old-crm"
    case .partner: "partner"
    }
  }

  var story: String {
    switch self {
    case .billing: "works, but 5 % of its answers are errors (500)"
    case .warehouse: "the same, and wants the events of each order in order"
    case .analytics: "hangs at first: takes requests and never answers"
    case .legacy: "answers 410 (gone), and is disabled for it"
    case .partner: "is down: nothing listens on its port"
    }
  }

  /// Why deliveries to it are given up.
  var trouble: String {
    switch self {
    case .legacy: "410"
    case .partner: "down"
    case .billing, .warehouse, .analytics: "a surprise"
    }
  }

  /// Named arguments of outbox.add_endpoint. Delays are short, so that the demo is: the defaults span three days.
  var settings: String {
    switch self {
    case .billing: "timeout => '5 s', first_delay => '300 ms', multiplier => 2"
    case .warehouse: "timeout => '5 s', first_delay => '100 ms', multiplier => 2, ordered => true"
    case .analytics: "timeout => '1 s', first_delay => '500 ms', multiplier => 2, longest_delay => '4 s'"
    case .legacy: "timeout => '5 s'"
    // The circuit must not open, or giving up would take longer than the demo.
    case .partner: "max_attempts => 3, first_delay => '300 ms', multiplier => 2, failure_threshold => 1000000"
    }
  }

  /// A signing secret in the form of Standard Webhooks.
  static func newSecret() -> String {
    var system = SystemRandomNumberGenerator()
    let bytes = (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &system) }
    return "whsec_" + Data(bytes).base64EncodedString()
  }
}
