/// What a repetition is due to: a fault that was made, or what a busy machine does of itself. There is no other.
package enum Cause: Hashable, Sendable {
  case fault(Fault)
  /// A request whose answer did not come in time, though the receiver may have sent it.
  case timeout
  /// A lease that ran out with no fault to make it, because its dispatcher got no processor time.
  case lease

  static let all = Fault.allCases.map(Cause.fault) + [.timeout, .lease]

  package var name: String {
    switch self {
    case .fault(let fault): fault.rawValue
    case .timeout: "request-timeout"
    case .lease: "lost-lease"
    }
  }
}

extension Cause: Codable {
  package init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let name = try container.decode(String.self)
    guard let cause = Self.all.first(where: { $0.name == name }) else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "no cause is called \(name)")
    }
    self = cause
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(name)
  }
}
