//! How values that are no plain JSON types are written, for the document. What derives `ToSchema` names one
//! of these: `#[schema(value_type = AddressText)]`. Ids of ours need no such word.

use std::borrow::Cow;

use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::units::{IntentId, PaymentId, UserId};

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident as $shown:literal: $pattern:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new().schema_type(Type::String).pattern(Some($pattern)).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                $shown.into()
            }
        }
    )*};
}

texts! {
    /// 20 bytes in hex; with its EIP-55 checksum where it comes from here.
    AddressText as "Address": "^0x[0-9a-fA-F]{40}$";
    /// 32 bytes in hex.
    HashText as "Hash": "^0x[0-9a-fA-F]{64}$";
    /// Any bytes in hex.
    BytesText as "Bytes": "^0x([0-9a-fA-F]{2})*$";
}

texts! {
    /// A decimal number without an exponent: digits, and behind a point digits.
    DecimalText as "Decimal": "^(0|[1-9][0-9]*)([.][0-9]+)?$";
    /// A whole number of wei.
    WeiText as "Wei": "^(0|[1-9][0-9]*)$";
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident as $shown:literal: $($value:literal)|+;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new().schema_type(Type::String).enum_values(Some([$($value),+])).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                $shown.into()
            }
        }
    )*};
}

choices! {
    /// How a download is written.
    FormatText as "Format": "csv" | "json";
    GateText as "Gate": "credit" | "release";
    /// What a refund draws from.
    SourceText as "RefundSource": "held" | "received" | "suspense";
    ResolutionText as "Resolution": "refund" | "replacement" | "compensation" | "no_action";
    DecisionText as "ScreeningDecision": "clear" | "confirm";
    TransferStateText as "TransferState": "waiting" | "confirmed" | "orphaned";
    DeliveryStateText as "DeliveryState": "pending" | "delivered" | "dead";
    /// What is open, or all there ever was.
    OpenOrAllText as "OpenOrAll": "open" | "all";
    HeldOrAllText as "HeldOrAll": "held" | "all";
}

macro_rules! ids {
    ($($name:ident),*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid))).into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

ids!(PaymentId, IntentId, UserId);
