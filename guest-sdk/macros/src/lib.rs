//! The `#[tool]` attribute. It reads a function's name and doc comment and puts a type of the same
//! name beside it, by which `keybearer_guest::export!` finds the tool. What the types of its argument
//! and result mean is left to the compiler: nothing here looks into them.

use proc_macro::TokenStream;
use quote::quote;
use syn::Attribute;
use syn::ItemFn;
use syn::LitStr;
use syn::parse_macro_input;
use syn::spanned::Spanned;

/// Makes a function a tool.
///
/// The function takes one argument (or none) and gives back a `Result`. The argument's type is
/// `Deserialize + JsonSchema`, the result's is `Serialize + JsonSchema`, the error goes into a
/// `ToolError`. Its name is the tool's name, its doc comment the tool's description: both are what a
/// model chooses by and a person approves.
///
/// - `read_only`: the tool changes nothing anywhere. It is then idempotent as well.
/// - `idempotent`: to run it twice with the same arguments does no more than to run it once.
/// - `name = "…"`: another name than the function's.
#[proc_macro_attribute]
pub fn tool(attributes: TokenStream, item: TokenStream) -> TokenStream {
    let mut options = Options::default();
    let parser = syn::meta::parser(|meta| options.read(&meta));
    parse_macro_input!(attributes with parser);
    let function = parse_macro_input!(item as ItemFn);
    expand(&options, &function)
        .unwrap_or_else(|error| {
            let error = error.into_compile_error();
            quote!(#function #error)
        })
        .into()
}

#[derive(Default)]
struct Options {
    name: Option<LitStr>,
    read_only: bool,
    idempotent: bool,
}

impl Options {
    fn read(&mut self, meta: &syn::meta::ParseNestedMeta<'_>) -> syn::Result<()> {
        if meta.path.is_ident("read_only") {
            self.read_only = true;
        } else if meta.path.is_ident("idempotent") {
            self.idempotent = true;
        } else if meta.path.is_ident("name") {
            self.name = Some(meta.value()?.parse()?);
        } else {
            return Err(meta.error("a tool is `read_only`, `idempotent`, or has a `name = \"…\"`"));
        }
        Ok(())
    }
}

fn expand(options: &Options, function: &ItemFn) -> syn::Result<proc_macro2::TokenStream> {
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let (name, name_span) = match &options.name {
        Some(literal) => (literal.value(), literal.span()),
        None => (ident.to_string(), ident.span()),
    };
    if !is_tool_name(&name) {
        return Err(syn::Error::new(
            name_span,
            "a tool's name is 1 to 63 of a-z, 0-9 and `_`, begins with a letter and does not end with `_`",
        ));
    }
    let run = check_signature(function)?;
    let description = description(&function.attrs);
    if description.is_empty() {
        return Err(syn::Error::new(
            ident.span(),
            "a tool needs a doc comment: it is the description by which a model chooses and a person approves",
        ));
    }
    let read_only = options.read_only;
    let idempotent = options.idempotent || options.read_only;
    Ok(quote! {
        #function

        #[doc = #description]
        #[expect(non_camel_case_types, reason = "it stands beside the function of the same name")]
        #visibility enum #ident {}

        impl ::keybearer_guest::Tool for #ident {
            const NAME: &'static str = #name;

            fn describe() -> ::keybearer_guest::Description {
                ::keybearer_guest::__private::describe(#run, #name, #description, #read_only, #idempotent)
            }

            fn invoke(arguments: &str) -> ::core::result::Result<::std::string::String, ::keybearer_guest::ToolError> {
                ::keybearer_guest::__private::invoke(#run, arguments)
            }
        }
    })
}

/// The expression that runs the function on one argument.
fn check_signature(function: &ItemFn) -> syn::Result<proc_macro2::TokenStream> {
    let signature = &function.sig;
    let refuse = |span: proc_macro2::Span, why: &str| Err(syn::Error::new(span, why));
    if let Some(keyword) = &signature.asyncness {
        return refuse(
            keyword.span(),
            "a tool is a plain function: to send many requests at once, use `http::send_all`",
        );
    }
    if !signature.generics.params.is_empty() {
        return refuse(signature.generics.span(), "a tool has no generics: its schema must be known at publish");
    }
    let ident = &signature.ident;
    match signature.inputs.len() {
        0 => Ok(quote!(|_: ::keybearer_guest::__private::NoArguments| #ident())),
        1 if matches!(signature.inputs.first(), Some(syn::FnArg::Typed(_))) => Ok(quote!(#ident)),
        _ => refuse(signature.inputs.span(), "a tool takes one argument: a struct whose fields are the arguments"),
    }
}

/// The rule of `keybearer:tool` for names.
fn is_tool_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'_'
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_')
}

/// The doc comment as running text: lines of a paragraph joined, paragraphs kept apart.
fn description(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    let mut paragraph_ended = false;
    for line in attributes.iter().filter_map(doc_line) {
        for line in line.lines().map(str::trim) {
            if line.is_empty() {
                paragraph_ended = true;
                continue;
            }
            if !text.is_empty() {
                text.push_str(if paragraph_ended { "\n\n" } else { " " });
            }
            text.push_str(line);
            paragraph_ended = false;
        }
        paragraph_ended |= line.trim().is_empty();
    }
    text
}

fn doc_line(attribute: &Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) if pair.path.is_ident("doc") => {
            Some(text.value())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(options: &Options, function: &str) -> Result<String, String> {
        let function = syn::parse_str(function).expect("a function");
        expand(options, &function).map(|tokens| tokens.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_a_tool_is_refused_with_the_reason() {
        for (function, reason) in [
            ("/// D.\nasync fn a(x: A) -> Result<B, E> {}", "http::send_all"),
            ("/// D.\nfn a<T>(x: T) -> Result<B, E> {}", "no generics"),
            ("/// D.\nfn a(x: A, y: B) -> Result<B, E> {}", "one argument"),
            ("/// D.\nfn a(self) -> Result<B, E> {}", "one argument"),
            ("fn a(x: A) -> Result<B, E> {}", "doc comment"),
            ("///  \nfn a(x: A) -> Result<B, E> {}", "doc comment"),
            ("/// D.\nfn a_(x: A) -> Result<B, E> {}", "63 of a-z"),
            ("/// D.\nfn createRefund(x: A) -> Result<B, E> {}", "63 of a-z"),
        ] {
            let error = expanded(&Options::default(), function).expect_err(function);
            assert!(error.contains(reason), "{function}: {error}");
        }
        assert!(expanded(&Options::default(), "/// D.\npub fn a(x: A) -> Result<B, E> {}").is_ok());
    }

    #[test]
    fn lines_of_a_paragraph_are_joined_and_paragraphs_are_kept_apart() {
        let function: ItemFn =
            syn::parse_str("///\n/// One\n/// line.\n///\n///\n/// Another.\n///\nfn a() {}").expect("a function");
        assert_eq!(description(&function.attrs), "One line.\n\nAnother.");
    }
}
