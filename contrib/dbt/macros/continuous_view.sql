{#
  The materialization continuous_view. dbt's own view is made beside the old one and renamed, which would count from nothing at each run; this one is
  replaced in place: a model whose query has not changed goes on as it is.
#}
{% materialization continuous_view, adapter='postgres' %}
  {%- set wanted = streamext.streamext_options() -%}
  {%- set old = load_cached_relation(this) -%}
  {%- set view = this.incorporate(type='view') -%}

  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}

  {% if old is not none and (old.type != 'view' or should_full_refresh()) %}
    {% do adapter.drop_relation(old) %}
    {% set old = none %}
  {% endif %}
  {# What a model does not ask for any more: CREATE OR REPLACE alone would keep it. #}
  {% set gone = streamext.streamext_options_gone(view, wanted) if old is not none else [] %}

  {% call statement('main') %}
    create or replace view {{ view }} with (streamext.continuous
      {%- for name, value in wanted.items() %}, "streamext.{{ name }}" = {{ dbt.string_literal(streamext.streamext_literal(value)) }}{% endfor %}) as
    {{ sql }}
  {% endcall %}
  {% for name in gone %}
    {% do run_query('alter view ' ~ view ~ ' reset ("' ~ name ~ '")') %}
  {% endfor %}

  {% do apply_grants(view, config.get('grants'), should_revoke=should_revoke(old, full_refresh_mode=False)) %}
  {% do persist_docs(view, model) %}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {{ adapter.commit() }}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [view]}) }}
{% endmaterialization %}

{# The view's options by their names without "streamext.": config(streamext={'retention': '30 days'}), or the same below meta. #}
{% macro streamext_options() %}
  {{ return(config.get('streamext') or (config.get('meta') or {}).get('streamext') or {}) }}
{% endmacro %}

{% macro streamext_literal(value) %}
  {{ return((value | string | lower if value is boolean else value | string) | replace("'", "''")) }}
{% endmacro %}

{# Of those that ALTER VIEW can change; what else a view keeps, such as its time zone, is what its state was made with. #}
{% macro streamext_options_gone(view, wanted) %}
  {% set free = ['retention', 'lateness', 'keep_late', 'max_groups', 'emit_interval', 'notify'] %}
  {% set found = run_query("select split_part(o, '=', 1) from pg_catalog.pg_class as c, unnest(c.reloptions) as o
      where c.oid = " ~ dbt.string_literal(view | string | replace("'", "''")) ~ "::regclass and o like 'streamext.%'") %}
  {% set gone = [] %}
  {% for row in found.rows if row[0][10:] in free and row[0][10:] not in wanted %}
    {% do gone.append(row[0]) %}
  {% endfor %}
  {{ return(gone) }}
{% endmacro %}
